"""What a node has: storage client, cache folder, devices."""
