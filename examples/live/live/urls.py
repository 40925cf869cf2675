"""The project's URLs: everything is the board's."""

from django.urls import include, path

urlpatterns = [path("", include("board.urls"))]
