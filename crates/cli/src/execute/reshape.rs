//! What is asked of generations. What a new one would come to is found out beside the engine.

use fieldkeep_catalog::{Afresh as Changes, Kind};
use fieldkeep_console::shape::reshape::Afresh;
use fieldkeep_console::{Code, Failure};
use fieldkeep_model::TypeName;
use fieldkeep_relay::Engine;
use fieldkeep_replica::{Note, Reshaping, rehearse_reshape};
use fieldkeep_store::{Reader, home};

use super::relay::relay;
use crate::access::{Owner, RelayOwner};
use crate::request::ReshapeWish;
use crate::response::Response;
use crate::time::now_ms;

pub(super) fn begin(owner: &Owner, wanted: ReshapeWish) -> Result<Response, Failure> {
    let relay = relay(owner)?;
    let would = rehearse(owner, relay, &wanted)?;
    if wanted.dry_run {
        return Ok(Response::Afresh(Box::new(would)));
    }
    let ReshapeWish { ty, file, note, cut, .. } = wanted.clone();
    let changes = changes(&wanted)?;
    relay.with_engine(move |engine| {
        let note = Note { text: &note, time: now_ms() };
        Ok(engine.begin_reshape(&ty, file.as_deref(), &changes, (note, cut))?)
    })?;
    if !relay.is_serving() {
        relay.with_engine(finish)?;
    }
    Ok(Response::Afresh(Box::new(would)))
}

/// Does what a relay that serves does when nothing else is to be done.
fn finish(engine: &mut Engine) -> Result<(), Failure> {
    while engine.replica().is_reshaping() && engine.work(now_ms())? {
        engine.commit()?;
    }
    Ok(())
}

fn changes(wanted: &ReshapeWish) -> Result<Changes, Failure> {
    let kind = |(field, word): &(String, String)| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        kind.map(|kind| (field.clone(), kind)).ok_or_else(Failure::unexpected)
    };
    let kinds = wanted.kinds.iter().map(kind).collect::<Result<_, _>>()?;
    Ok(Changes { buckets: wanted.buckets, scope: wanted.scope.clone(), kinds })
}

fn rehearse(owner: &Owner, relay: &RelayOwner, wanted: &ReshapeWish) -> Result<Afresh, Failure> {
    let (changes, ReshapeWish { ty, file, .. }) = (changes(wanted)?, wanted.clone());
    let (in_force, next, scoped) = relay.with_engine(move |engine| {
        let replica = engine.replica();
        let next = replica.afresh(&ty, file.as_deref(), &changes)?;
        let in_force = replica.published().map(|published| published.catalog.clone());
        let in_force = in_force.ok_or_else(Failure::unexpected)?;
        let scope =
            |catalog: &fieldkeep_catalog::Catalog| catalog.ty(&ty).and_then(|ty| ty.scope.clone());
        let members = replica.members().members().values().filter(|member| {
            let scoped =
                |g: &fieldkeep_model::Grant| g.scope.is_some() && g.ty.as_ref() == Some(&ty);
            !member.revoked && member.grants.iter().any(scoped)
        });
        let scoped: Vec<String> = match scope(&in_force) == scope(&next) {
            true => Vec::new(),
            false => members.map(|member| member.name.clone()).collect(),
        };
        Ok((in_force, next, scoped))
    })?;
    let (Some(old), Some(new)) = (in_force.ty(&wanted.ty), next.ty(&wanted.ty)) else {
        return Err(Failure::unexpected());
    };
    let reader = Reader::open(&home::database(owner.directory()))?;
    let far = rehearse_reshape(&reader, old, new, wanted.cut)?;
    let would = Afresh::new(wanted.ty.as_str(), (old.generation, new.generation), far);
    Ok(Afresh { scoped, catalog: next.source().to_owned(), ..would })
}

pub(super) fn far(owner: &Owner, ty: &TypeName) -> Result<Response, Failure> {
    let ty = ty.clone();
    let far = relay(owner)?.with_engine(move |engine| told(engine, &ty))?;
    Ok(Response::Afresh(Box::new(far)))
}

pub(super) fn give_up(owner: &Owner, ty: &TypeName) -> Result<Response, Failure> {
    let ty = ty.clone();
    let far = relay(owner)?.with_engine(move |engine| {
        let under_way = engine.replica().reshape();
        if under_way.is_none_or(|(under_way, _)| under_way.ty != ty) {
            let message = format!("no new generation of {ty} is being written");
            return Err(Failure::new(Code::NotFound, message, "nothing was changed"));
        }
        engine.give_up_reshape()?;
        told(engine, &ty)
    })?;
    Ok(Response::Afresh(Box::new(far)))
}

fn told(engine: &Engine, ty: &TypeName) -> Result<Afresh, Failure> {
    let replica = engine.replica();
    let under_way = Afresh::under_way(replica).filter(|afresh| afresh.ty == ty.as_str());
    Ok(under_way.unwrap_or_else(|| {
        let generation = replica.generations().get(ty).copied().unwrap_or_default();
        Afresh::new(ty.as_str(), (generation, generation), Reshaping::default())
    }))
}
