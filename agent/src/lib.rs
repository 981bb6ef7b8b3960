//! What captures: the cut and the API resources.
