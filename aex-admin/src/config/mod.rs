//! models.yaml and the price catalogue.
