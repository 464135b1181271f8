"""What is trained: each objective has parameters, named loss terms and their randomness."""
