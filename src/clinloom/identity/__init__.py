"""Who is who: identifiers, subjects and the crosswalk between them."""
