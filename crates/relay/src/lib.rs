//! The server side: ingest, fan-out and quarantine.
