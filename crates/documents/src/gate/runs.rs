//! The columns of a change chunk, read strictly: numbers, runs and values.
//!
//! A column has exactly one canonical encoding, the one that Automerge writes again when a saved
//! document is loaded. [`Runs`] reads a column and notices every departure from it, so no second
//! encoding is needed to prove the form. Allocates nothing and expands no run.

use super::refusal::Code;

/// How strictly columns are read. Laxness exists to show what the canonical form is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Anything but the canonical encoding is refused.
    Canonical,
    /// Whatever Automerge understands is read.
    Any,
}

impl Form {
    pub(super) fn demand(self, canonical: bool) -> Result<(), Code> {
        if canonical || self == Self::Any { Ok(()) } else { Err(Code::NotCanonical) }
    }
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Input<'a> {
    pub(super) fn new(rest: &'a [u8], form: Form) -> Self {
        Self { rest, form }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Code> {
        let len = usize::try_from(len).map_err(|_| Code::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Code::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn uleb(&mut self) -> Result<u64, Code> {
        let mut value = 0u64;
        for (shift, &byte) in (0..64).step_by(7).zip(self.rest) {
            if shift == 63 && byte > 1 {
                return Err(Code::Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.form.demand(byte != 0 || shift == 0)?;
                self.rest = &self.rest[shift / 7 + 1..];
                return Ok(value);
            }
        }
        Err(Code::Malformed)
    }

    pub(super) fn sleb(&mut self) -> Result<i64, Code> {
        let (mut value, mut last) = (0i64, 0u8);
        for (shift, &byte) in (0..64).step_by(7).zip(self.rest) {
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(Code::Malformed);
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let sign = if last & 0x40 == 0 { 0 } else { 0x7f };
                self.form.demand(shift == 0 || byte != sign)?;
                if shift < 57 && byte & 0x40 != 0 {
                    value |= -1 << (shift + 7);
                }
                self.rest = &self.rest[shift / 7 + 1..];
                return Ok(value);
            }
            last = byte;
        }
        Err(Code::Malformed)
    }
}

/// What a run-length encoded column is made of.
pub(super) trait Item<'a>: Copy + PartialEq {
    fn read(input: &mut Input<'a>) -> Result<Self, Code>;
}

impl Item<'_> for u64 {
    fn read(input: &mut Input<'_>) -> Result<Self, Code> {
        input.uleb()
    }
}

impl Item<'_> for i64 {
    fn read(input: &mut Input<'_>) -> Result<Self, Code> {
        input.sleb()
    }
}

impl<'a> Item<'a> for &'a str {
    fn read(input: &mut Input<'a>) -> Result<Self, Code> {
        let length = input.uleb()?;
        std::str::from_utf8(input.take(length)?).map_err(|_| Code::Malformed)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Run {
    Start,
    Nulls,
    Repeat,
    Literal,
}

/// A run-length encoded column, item by item; `None` is a null. A column that is absent is all
/// nulls.
pub(super) struct Runs<'a, T> {
    input: Input<'a>,
    run: Run,
    left: u64,
    /// The last item that was not null.
    last: Option<T>,
    absent: bool,
}

impl<'a, T: Item<'a>> Runs<'a, T> {
    pub(super) fn new(column: &'a [u8], form: Form) -> Self {
        let input = Input::new(column, form);
        Self { input, run: Run::Start, left: 0, last: None, absent: column.is_empty() }
    }

    pub(super) fn next(&mut self) -> Result<Option<T>, Code> {
        while self.left == 0 {
            if self.input.is_empty() {
                self.input.form.demand(self.absent)?;
                return Ok(None);
            }
            self.begin()?;
        }
        self.left -= 1;
        match self.run {
            Run::Start | Run::Nulls => Ok(None),
            Run::Repeat => Ok(self.last),
            Run::Literal => {
                let item = T::read(&mut self.input)?;
                // Two equal neighbours would have been a run.
                self.input.form.demand(self.last != Some(item))?;
                self.last = Some(item);
                Ok(self.last)
            }
        }
    }

    /// The next item of a column that has no nulls.
    pub(super) fn some(&mut self) -> Result<T, Code> {
        self.next()?.ok_or(Code::Malformed)
    }

    /// Begins the next run. `last` afterwards is what the run's first item must differ from, which
    /// after nulls is nothing.
    fn begin(&mut self) -> Result<(), Code> {
        let before = self.run;
        match self.input.sleb()? {
            0 => {
                self.left = self.input.uleb()?;
                self.run = Run::Nulls;
                self.input.form.demand(before != Run::Nulls && self.left > 0)?;
                // A column that ends without a single value is left out.
                self.input.form.demand(self.last.is_some() || !self.input.is_empty())
            }
            count @ 1.. => {
                self.left = count.unsigned_abs();
                self.run = Run::Repeat;
                let item = T::read(&mut self.input)?;
                let merges = before != Run::Nulls && self.last == Some(item);
                self.last = Some(item);
                self.input.form.demand(count > 1 && !merges)
            }
            count => {
                self.left = count.unsigned_abs();
                self.run = Run::Literal;
                if before == Run::Nulls {
                    self.last = None;
                }
                self.input.form.demand(before != Run::Literal)
            }
        }
    }

    /// Demands that nothing is left.
    pub(super) fn end(self) -> Result<(), Code> {
        self.input.form.demand(self.left == 0 && self.input.is_empty())
    }
}

/// A column of differences: each item is the last one plus what the run holds.
pub(super) struct Deltas<'a> {
    runs: Runs<'a, i64>,
    value: i64,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(column: &'a [u8], form: Form) -> Self {
        Self { runs: Runs::new(column, form), value: 0 }
    }

    /// The next counter: operation counters are never negative.
    pub(super) fn next(&mut self) -> Result<Option<u64>, Code> {
        let Some(delta) = self.runs.next()? else {
            return Ok(None);
        };
        self.value = self.value.checked_add(delta).ok_or(Code::Malformed)?;
        u64::try_from(self.value).map(Some).map_err(|_| Code::Malformed)
    }

    pub(super) fn some(&mut self) -> Result<u64, Code> {
        self.next()?.ok_or(Code::Malformed)
    }

    pub(super) fn end(self) -> Result<(), Code> {
        self.runs.end()
    }
}

/// A column of booleans: counts of alternately false and true, beginning with false.
pub(super) struct Flags<'a> {
    input: Input<'a>,
    left: u64,
    value: bool,
    first: bool,
}

impl<'a> Flags<'a> {
    pub(super) fn new(column: &'a [u8], form: Form) -> Self {
        Self { input: Input::new(column, form), left: 0, value: true, first: true }
    }

    pub(super) fn next(&mut self) -> Result<bool, Code> {
        while self.left == 0 {
            if self.input.is_empty() {
                return Err(Code::Malformed);
            }
            self.left = self.input.uleb()?;
            self.value = !self.value;
            self.input.form.demand(self.left > 0 || self.first && !self.input.is_empty())?;
            self.first = false;
        }
        self.left -= 1;
        Ok(self.value)
    }

    pub(super) fn end(self) -> Result<(), Code> {
        self.input.form.demand(self.left == 0 && self.input.is_empty())
    }
}

/// A value as an operation carries it. Of bytes and unknown types the content does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool,
    Uint,
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes,
    Counter(i64),
    Timestamp,
    Unknown,
}

/// The two value columns: a type and a length each, and the raw bytes.
pub(super) struct Values<'a> {
    metas: Runs<'a, u64>,
    raw: Input<'a>,
}

impl<'a> Values<'a> {
    pub(super) fn new(metas: &'a [u8], raw: &'a [u8], form: Form) -> Self {
        Self { metas: Runs::new(metas, form), raw: Input::new(raw, form) }
    }

    pub(super) fn next(&mut self) -> Result<Value<'a>, Code> {
        let meta = self.metas.some()?;
        let (kind, length) = (meta & 15, meta >> 4);
        if kind < 3 {
            self.raw.form.demand(length == 0)?;
            return Ok(if kind == 0 { Value::Null } else { Value::Bool });
        }
        let bytes = self.raw.take(length)?;
        // Automerge itself refuses overlong numbers here, in any form.
        let mut number = Input::new(bytes, Form::Canonical);
        let value = match kind {
            3 => number.uleb().map(|_| Value::Uint)?,
            4 => number.sleb().map(Value::Int)?,
            5 => return float(bytes),
            6 => {
                return std::str::from_utf8(bytes).map(Value::Str).map_err(|_| Code::Malformed);
            }
            7 => return Ok(Value::Bytes),
            8 => number.sleb().map(Value::Counter)?,
            9 => number.sleb().map(|_| Value::Timestamp)?,
            _ => return Ok(Value::Unknown),
        };
        if number.is_empty() { Ok(value) } else { Err(Code::Malformed) }
    }

    pub(super) fn end(self) -> Result<(), Code> {
        self.metas.end()?;
        self.raw.form.demand(self.raw.is_empty())
    }
}

fn float(bytes: &[u8]) -> Result<Value<'_>, Code> {
    let bytes = bytes.try_into().map_err(|_| Code::Malformed)?;
    Ok(Value::Float(f64::from_le_bytes(bytes)))
}
