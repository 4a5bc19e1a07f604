"""What FHIR's reader is made of: resources, coding systems, what becomes an event."""
