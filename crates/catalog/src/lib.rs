//! What is allowed: object types, field kinds, schemas, rules, and the Judge.
