"""The board's URLs."""

from django.urls import path

from board import views

urlpatterns = [
    path("", views.page, name="page"),
    path("notes/", views.notes, name="notes"),
    path("notes/next/", views.next_notes, name="next-notes"),
    path("clock/", views.clock, name="clock"),
    path("upload/", views.upload, name="upload"),
]
