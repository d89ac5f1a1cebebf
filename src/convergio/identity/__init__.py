"""Who is asking: API keys and their scopes. Only a hash of a key is kept."""
