"""TLS before plain servers, with certificates of the tests' own."""
