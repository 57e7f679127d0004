"""The public API, written so that it reads like the SDL it prints."""
