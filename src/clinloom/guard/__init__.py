"""Who may do what with the store, and a record of who did: asked by `store` on every access."""
