"""Words of recordings changed by a model that speaks in their voice: said in a phrase, and cut out of it."""
