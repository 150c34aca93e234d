"""The formats that runs are exported to, one file each."""
