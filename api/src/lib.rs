//! What Stillpoint writes down: scope, cut, manifest, verdict.
