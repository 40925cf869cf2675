"""Which frameworks are promised to work, and which stories are told of each."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.frameworks import http_stories, websocket_stories
from tests.frameworks.channels_stories import CHANNELS_STORIES
from tests.frameworks.django_stories import DJANGO_STORIES
from tests.frameworks.fastapi_stories import FASTAPI_STORIES
from tests.frameworks.http_stories import HTTP_STORIES
from tests.frameworks.site import Framework, Story
from tests.frameworks.socketio_stories import SOCKETIO_STORIES
from tests.frameworks.strawberry_stories import STRAWBERRY_STORIES
from tests.frameworks.websocket_stories import WEBSOCKET_STORIES

__all__ = ["FRAMEWORKS", "markdown"]

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

NOT_LISTENING = "it does not listen while it sends"

FRAMEWORKS = (
    Framework(
        "Starlette",
        "starlette_app",
        ("starlette", "python-multipart"),
        (*HTTP_STORIES, *WEBSOCKET_STORIES),
        lacks={http_stories.hearing: NOT_LISTENING},
        failures=2,
    ),
    Framework(
        "FastAPI",
        "fastapi_app",
        ("fastapi", "python-multipart"),
        (*HTTP_STORIES, *WEBSOCKET_STORIES, *FASTAPI_STORIES),
        lacks={http_stories.hearing: NOT_LISTENING},
        failures=2,
    ),
    Framework(
        "Litestar",
        "litestar_app",
        ("litestar",),
        (*HTTP_STORIES, *WEBSOCKET_STORIES),
        lacks={
            http_stories.ranges: "it sends the whole file",
            http_stories.kept: "it sends them again",
            websocket_stories.denied_with_a_response: "it has no call for it",
        },
        failures=2,
    ),
    Framework(
        "Quart",
        "quart_app",
        ("quart",),
        (*HTTP_STORIES, *WEBSOCKET_STORIES),
        failures=2,
    ),
    Framework(
        "Django",
        "django_app",
        ("django", "djangorestframework", "whitenoise", "channels"),
        (*HTTP_STORIES, *DJANGO_STORIES),
        lacks={
            http_stories.ranges: "WhiteNoise sends them, Django's `FileResponse` does not",
            http_stories.background: "nothing in Django runs them",
            http_stories.state: "it has no lifespan",
        },
        lifespan=False,
        failures=2,
    ),
    Framework(
        "Channels",
        "channels_app",
        ("channels", "django"),
        (
            http_stories.leaving,
            http_stories.events,
            http_stories.hearing,
            *WEBSOCKET_STORIES,
            *CHANNELS_STORIES,
        ),
        lacks={
            http_stories.hearing: NOT_LISTENING,
            websocket_stories.denied_with_a_response: "it has no call for it",
        },
        lifespan=False,
        failures=1,
    ),
    Framework(
        "python-socketio",
        "socketio_app",
        ("python-socketio",),
        SOCKETIO_STORIES,
    ),
    Framework(
        "Strawberry",
        "strawberry_app",
        ("strawberry-graphql",),
        STRAWBERRY_STORIES,
        failures=2,
    ),
)


def _versions() -> dict[str, str]:
    """Return for each package of the dependency groups the oldest version that is tested."""
    groups = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    lines = [*groups["demo"], *groups["frameworks"]]
    found = [re.match(r"([\w-]+)[^>]*>=(.+)", line) for line in lines if isinstance(line, str)]
    return {match[1]: match[2] for match in found if match}


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(framework: Framework, story: Story) -> str:
    if story not in framework.stories:
        return ""
    return "no" if story in framework.lacks else "✓"


def markdown() -> str:
    """Return the tables of docs/frameworks.md."""
    versions = _versions()
    common = [*HTTP_STORIES, *WEBSOCKET_STORIES]
    columns = [each for each in FRAMEWORKS if set(each.stories) & set(common)]
    lines = [_row("", *(each.name for each in columns)), _row("---", *(":-:" for _ in columns))]
    lines += [_row(story.title, *(_cell(each, story) for each in columns)) for story in common]
    lines += ["", _row("", "at least", "beside the above"), _row("---", "---", "---")]
    for each in FRAMEWORKS:
        tested = ", ".join(f"{package} {versions[package]}" for package in each.packages)
        own = "; ".join(story.title for story in each.stories if story not in common)
        lines.append(_row(each.name, tested, own))
    reasons = [
        f"* {each.name}, {story.title}: {why}."
        for each in FRAMEWORKS
        for story, why in each.lacks.items()
    ]
    return "\n".join([*lines, "", "Where it says no:", "", *reasons])
