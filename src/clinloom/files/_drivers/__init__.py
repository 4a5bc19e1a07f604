"""One file a storage. What each owes is in ``clinloom.files.registry``."""
