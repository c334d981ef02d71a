"""What users hand over as data: columns of all libraries, masked arrays, numbers that lose digits."""
