"""Settings of the live chat.

Everything a deployment would change comes from the environment; the defaults make a demo on this
machine. The page carries its own style and script, so there are no static files to collect.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


def words(variable: str) -> list[str]:
    """Return the comma-separated words in an environment variable."""
    return [word.strip() for word in os.environ.get(variable, "").split(",") if word.strip()]


SECRET_KEY = os.environ.get("LIVE_SECRET_KEY", "demo-only-set-LIVE_SECRET_KEY-to-a-real-secret")
DEBUG = os.environ.get("LIVE_DEBUG", "").lower() in {"1", "true", "yes", "on"}
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *words("LIVE_ALLOWED_HOSTS")]
# Behind a proxy that speaks https to browsers and http to us, Django has to be told the origins.
CSRF_TRUSTED_ORIGINS = words("LIVE_TRUSTED_ORIGINS")

# Seconds. Both are shorter than the server's default `--graceful-timeout` of 25, so a reload
# finds every long poll and every clock ending by itself, and has to cut none of them.
LONG_POLL_SECONDS = float(os.environ.get("LIVE_LONG_POLL_SECONDS", "20"))
CLOCK_SECONDS = float(os.environ.get("LIVE_CLOCK_SECONDS", "20"))

INSTALLED_APPS = ["board"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "live.urls"
ASGI_APPLICATION = "live.asgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# The rooms of the chat reach all workers of this server: nothing is to be installed or started.
CHANNEL_LAYERS = {"default": {"BACKEND": "daphne_supervisor.channels.LocalChannelLayer"}}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("LIVE_DATABASE", BASE_DIR / "db.sqlite3"),
        # Several processes share the file: let readers go on while one writes, and let a writer
        # wait (seconds) for the lock from the start of its transaction instead of failing in it.
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"

# Without DEBUG, Django mails errors and prints none. A demo prints them.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "WARNING", "propagate": False}},
}
