"""What is stored of tenants: sealed, with keys of their own."""
