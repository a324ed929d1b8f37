"""What is held of a tenant: told, exported, erased."""
