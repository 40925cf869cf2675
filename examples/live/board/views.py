"""The page and its endpoints.

Sync views (`page`, `notes`, `upload`) run in a thread of the worker, so they may use the ORM and
block. Async views (`next_notes`, `clock`) run on its event loop, and Django cancels them when the
browser leaves. A clock that waits costs no thread; a long poll that waits keeps one, because
Django runs all database work of one request in the same thread. Every answer names the process
that gave it.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator

from django.conf import settings
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from board.forms import NoteForm, UploadForm
from board.models import Note

NEWEST = 20
LOOK_AGAIN_SECONDS = 0.25
running_clocks: set[object] = set()
"""One entry for each clock that this process, not the whole server, runs."""


@never_cache
@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the page, with the newest notes already in it."""
    context = {"worker": os.getpid(), "notes": Note.objects.all()[:NEWEST], "form": NoteForm()}
    return render(request, "board/page.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
def notes(request: HttpRequest) -> HttpResponse:
    """List the newest notes, or add one."""
    if request.method == "GET":
        newest = [note.as_dict() for note in Note.objects.all()[:NEWEST]]
        return JsonResponse({"worker": os.getpid(), "notes": newest})
    form = NoteForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"worker": os.getpid(), "errors": form.errors}, status=400)
    form.instance.worker = os.getpid()
    return JsonResponse({"worker": os.getpid(), "note": form.save().as_dict()}, status=201)


@never_cache
@require_GET
async def next_notes(request: HttpRequest) -> HttpResponse:
    """Answer as soon as there are notes after the one the browser knows, or when time is up.

    The database is the one thing all workers share here, so it is looked at again and again: the
    note may have come in through another process.
    """
    try:
        after = int(request.GET.get("after", "0"))
    except ValueError:
        return HttpResponseBadRequest("after: not a number")
    deadline = time.monotonic() + settings.LONG_POLL_SECONDS
    while not (found := await notes_after(after)) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return JsonResponse({"worker": os.getpid(), "notes": found})


async def notes_after(key: int) -> list[dict[str, object]]:
    """Return the notes younger than `key`, oldest first."""
    younger = Note.objects.filter(pk__gt=key).order_by("pk")[:NEWEST]
    return [note.as_dict() async for note in younger]


@never_cache
@require_GET
async def clock(request: HttpRequest) -> StreamingHttpResponse:  # noqa: ARG001
    """Stream the server's time as server-sent events."""
    return StreamingHttpResponse(
        ticks(),
        content_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx: hand every tick on at once
    )


async def ticks() -> AsyncIterator[str]:
    """Yield one event a second, on the second, until the browser leaves or it is time to end.

    When the browser leaves, Django cancels the `sleep`: what must be undone is undone in
    `finally`. When the stream ends, the browser comes back by itself after `retry` milliseconds,
    perhaps to another worker.
    """
    me = object()
    running_clocks.add(me)
    end = time.monotonic() + settings.CLOCK_SECONDS
    try:
        yield "retry: 300\n\n"
        while time.monotonic() < end:
            yield f"data: {json.dumps(tick())}\n\n"
            await asyncio.sleep(1 - time.time() % 1)
    finally:
        running_clocks.remove(me)


def tick() -> dict[str, object]:
    """Return what the clock says now."""
    now = f"{timezone.now():%H:%M:%S}"
    return {"worker": os.getpid(), "time": now, "clocks": len(running_clocks)}


@never_cache
@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Answer an uploaded file with its size and digest; keep nothing.

    Django keeps a large upload in a temporary file, and this reads that a piece at a time: the
    worker's memory does not grow with the upload.
    """
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return JsonResponse({"worker": os.getpid(), "errors": form.errors}, status=400)
    file = form.cleaned_data["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    answer = {"worker": os.getpid(), "name": file.name, "size": file.size}
    return JsonResponse(answer | {"sha256": digest.hexdigest()})
