"""The gateway's pages for people: plain HTML, CSS and ES modules in `static`, which ask the gateway as anybody does."""
