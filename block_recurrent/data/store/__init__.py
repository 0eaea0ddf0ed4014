"""Token stores on disk: reading, writing and inspecting them."""
