"""What runs in a worker process: protocols, exchanges and the application. The master never imports it."""
