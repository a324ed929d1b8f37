"""What reads each format of uploads. All of it runs in the confined process of ``ingest.py``."""
