"""Token stores on disk: reading, writing and inspection."""
