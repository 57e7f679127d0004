"""Head AI, put together: settings, the application, the commands."""

from importlib.metadata import version

__version__ = version("headai")
