"""The broker: what the workers' channel layers speak through; a process of its own."""
