"""Everything that touches a disk: validated, frozen, free of torch."""
