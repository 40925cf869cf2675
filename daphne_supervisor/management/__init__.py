"""What `manage.py` can do with the server: the place is Django's."""
