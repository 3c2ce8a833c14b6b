//! Questions: the catalog's queries, asked of what is committed, beside the engine.
//!
//! An answer goes on a stream of its own, so that it holds up no receipt.

use fieldkeep_catalog::{Catalog, CatalogError, Query};
use fieldkeep_model::Refusal;
use fieldkeep_protocol::frame::{Answer, Ask, Frame, Said};
use fieldkeep_protocol::priority;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{AskError, Question, Rows, Store};
use serde_json::{Map, Value};

use super::{ConnectionId, Engine, Output};

/// Questions of a connection that may be under way at once.
const UNDER_WAY: usize = 4;
/// The longest parameters, in bytes.
const PARAMS: usize = 64 * 1024;

impl Engine {
    pub(super) fn ask(&mut self, id: ConnectionId, ask: &Ask) {
        let question = self.question(id, ask);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let number = ask.number;
        match question {
            Ok(question) if peer.asks < UNDER_WAY => {
                peer.asks += 1;
                self.outputs.push(Output::Ask { to: id, number, question: Box::new(question) });
            }
            Ok(_) => {
                let text = "too many questions at once: try again".to_owned();
                self.reply(id, number, refused(Refusal::Busy, text));
            }
            Err(said) => self.reply(id, number, said),
        }
    }

    fn question(&self, id: ConnectionId, ask: &Ask) -> Result<Question, Said> {
        let member = self.member(id);
        let unknown = || {
            refused(Refusal::Unknown, format!("the relay's catalog has no query `{}`", ask.query))
        };
        let catalog = &self.replica.published().ok_or_else(unknown)?.catalog;
        let query = catalog.query(&ask.query).ok_or_else(unknown)?;
        if !query.who.includes(&member) {
            let text = format!("{} may not ask `{}`", member.name, ask.query);
            return Err(refused(Refusal::Denied, text));
        }
        let params = Some(&ask.params).filter(|params| params.len() <= PARAMS);
        let params = params.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let no_object = || refused(Refusal::Input, "the parameters are no JSON object".to_owned());
        let params = params.ok_or_else(no_object)?;
        let misfit =
            |error: fieldkeep_catalog::CallError| refused(Refusal::Input, error.to_string());
        query.params.check(&params).map_err(misfit)?;
        let rows = self.replica.segments().values();
        let readable = rows.filter(|row| member.may(&row.address.ty, &row.address.scope));
        let segments = (!query.organisation_wide).then(|| readable.map(|row| row.sid).collect());
        Ok(Question {
            segments,
            params: params.into_iter().collect(),
            ..question_of(catalog, query)
        })
    }

    /// A question was answered.
    pub(super) fn answered(&mut self, id: ConnectionId, number: u64, said: Said) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.asks = peer.asks.saturating_sub(1);
            self.reply(id, number, said);
        }
    }

    fn reply(&mut self, id: ConnectionId, number: u64, said: Said) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.next_stream += 1;
        let stream = peer.next_stream;
        self.send(id, stream, priority::DELTA, &Frame::Answer(Answer { number, said }));
        self.outputs.push(Output::Finish(id, stream));
    }
}

/// What a question came to, as it is told.
#[must_use]
pub fn said(answer: Result<Rows, AskError>) -> Said {
    match answer {
        Ok(Rows { columns, rows, whole }) => {
            let rows = Value::from_iter(rows.into_iter().map(Value::from)).to_string();
            Said::Rows { columns, rows, whole }
        }
        Err(error @ AskError::Bounds) => refused(Refusal::Bounds, error.to_string()),
        Err(error @ AskError::Refused(_)) => refused(Refusal::Unmet, error.to_string()),
        Err(error @ AskError::Store(_)) => refused(Refusal::Host, error.to_string()),
    }
}

fn refused(refusal: Refusal, reason: String) -> Said {
    Said::Refused { refusal, reason }
}

fn question_of(catalog: &Catalog, query: &Query) -> Question {
    let views = catalog.types().iter();
    let views = views.map(|(ty, object)| (ty.to_string(), object.fields.keys().cloned().collect()));
    let params = query.params.fields.keys().map(|name| (name.clone(), Value::Null));
    Question {
        sql: query.sql.clone(),
        params: params.collect(),
        views: views.collect(),
        segments: None,
    }
}

/// Whether every query of a catalog could be asked here.
///
/// # Errors
/// [`ReplicaError::Catalog`] with those that cannot.
pub fn check_queries(catalog: &Catalog) -> Result<(), ReplicaError> {
    let mut errors: Vec<CatalogError> = Vec::new();
    for query in catalog.queries().values() {
        match Store::in_memory()?.into_reader().check(&question_of(catalog, query)) {
            Ok(()) => {}
            Err(AskError::Store(error)) => return Err(error.into()),
            Err(error) => errors.push(catalog.refuse_query(query, error.to_string())),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ReplicaError::Catalog(errors)) }
}
