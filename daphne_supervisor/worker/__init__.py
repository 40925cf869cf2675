"""What runs in a worker: protocols, exchanges, the application. The master never imports it."""
