//! What is merged: the only room that knows Automerge.
