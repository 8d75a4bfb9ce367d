"""Job lists: JSON Lines or CSV read a row at a time, completed by a template, and validated before anything is sent."""
