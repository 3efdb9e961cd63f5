//! Values while a graph is walked: made by nodes, or views that become nodes when something computes with them.

use super::graph::{Importer, Refusal, Traced};
use super::view::{Part, View, natural, rearrange};
use crate::nn::model::{Formula, Gather, OperatorSpec};
use crate::nn::tensor::Shape;
use std::rc::Rc;

/// A view, and the node of the file that made it.
pub(super) struct Named {
    pub of: View,
    pub name: String,
}

impl Importer<'_> {
    /// The picture, as the file takes it; `turned` if that is with the channels last.
    pub(super) fn input(&mut self, shape: Shape, turned: bool) -> Result<Traced, Refusal> {
        let dims = vec![1, shape.channels, shape.height, shape.width];
        let picture = Traced::of(0, dims);
        if turned { self.transposed(&picture, &[0, 2, 3, 1], "input") } else { Ok(picture) }
    }

    /// The value of the result, and the node that makes it.
    pub(super) fn result(&mut self, x: &Traced) -> Result<usize, Refusal> {
        let value = self.settle(x, "output")?;
        self.realise(value)?;
        Ok(value)
    }

    /// Makes the nodes of a view, if it is one and has none yet: one for each value that it takes elements from, and their sum.
    pub(super) fn realise(&mut self, value: usize) -> Result<(), Refusal> {
        let Some(view) = self.views.get(&value).filter(|_| !self.makers.contains_key(&value)).cloned() else { return Ok(()) };
        let name = view.name.clone();
        let mut constants = match view.of.constants.is_empty() {
            true => None,
            false => Some(view.of.constants.clone()),
        };
        let dims = vec![view.of.shape.channels, view.of.shape.height, view.of.shape.width];
        let mut sum: Option<usize> = None;
        for (k, part) in view.of.parts.iter().enumerate() {
            let last = k + 1 == view.of.parts.len();
            let operator = match part.factored(view.of.shape) {
                Ok(map) if constants.is_none() => rearrange(map),
                map => {
                    let written;
                    let sources = match map {
                        Ok(map) => {
                            let mut sources = vec![Gather::NONE; view.of.shape.len()];
                            map.for_each(part.from, |to, from| sources[to] = from as u32);
                            written = sources;
                            &written
                        }
                        Err(sources) => sources,
                    };
                    self.one_by_one(&dims, sources, constants.take())?
                }
            };
            let alone = last && sum.is_none();
            let made = if alone { value } else { self.reserve(view.of.shape) };
            self.push(&name, &[part.source], operator, made)?;
            if let Some(before) = sum {
                let joined = if last { value } else { self.reserve(view.of.shape) };
                self.push(&name, &[before, made], OperatorSpec::Add, joined)?;
                sum = Some(joined);
            } else {
                sum = Some(made);
            }
        }
        if sum.is_none() {
            // Constants alone: the picture is read, but none of its elements.
            let operator = self.one_by_one(&dims, &vec![Gather::NONE; view.of.shape.len()], constants)?;
            self.push(&name, &[0], operator, value)?;
        }
        Ok(())
    }

    /// The operator that moves elements one by one, and adds a constant of its own to each.
    pub(super) fn one_by_one(
        &mut self,
        dims: &[usize],
        sources: &[u32],
        constants: Option<Vec<f64>>,
    ) -> Result<OperatorSpec, Refusal> {
        let index = |from: &u32| if *from == Gather::NONE { -1.0 } else { f64::from(*from) };
        let sources = self.keep_values(dims.to_vec(), sources.iter().map(index).collect())?;
        let constants = constants.map(|c| self.keep_values(dims.to_vec(), c)).transpose()?;
        Ok(OperatorSpec::Gather { sources, constants })
    }

    /// A value that no node makes yet.
    fn reserve(&mut self, shape: Shape) -> usize {
        self.shapes.push(shape);
        self.shapes.len() - 1
    }

    /// A view as a value; the value that it is, if it is all of one in its shape.
    pub(super) fn hold(&mut self, view: View, name: &str) -> usize {
        if let Some(value) = view.is_of().filter(|v| self.shape(*v) == view.shape) {
            return value;
        }
        let value = self.reserve(view.shape);
        self.views.insert(value, Rc::new(Named { of: view, name: name.into() }));
        value
    }

    /// A view in a shape of the file.
    pub(super) fn viewed(&mut self, view: View, dims: Vec<usize>, name: &str) -> Traced {
        let value = match view.is_of() {
            Some(value) => value,
            None => self.hold(view, name),
        };
        Traced::of(value, dims)
    }

    /// Where the elements of x come from. What is done to each is done before they are moved where that is no more work.
    pub(super) fn view(&mut self, x: &Traced, name: &str) -> Result<View, Refusal> {
        if x.expression != Formula::x()
            && let Some(view) = self.views.get(&x.base).cloned()
            && let Some(part) = view.of.single().filter(|part| part.from.len() <= view.of.shape.len())
        {
            let source = self.settle(&Traced { base: part.source, ..x.clone() }, name)?;
            let part = Part { source, ..part.clone() };
            return Ok(View { shape: view.of.shape, parts: vec![part], constants: Vec::new() });
        }
        let value = self.settle(x, name)?;
        Ok(match self.views.get(&value) {
            Some(view) => view.of.clone(),
            None => View::whole(value, self.shape(value)),
        })
    }

    /// The picture that a value is one with zeros around it of, and how many these are above it, left of it, below and right of it; none
    /// if it is something else.
    pub(super) fn zeros_around(&self, value: usize) -> Option<(usize, [usize; 4])> {
        let view = &self.views.get(&value)?.of;
        let ([part], true) = (&view.parts[..], view.constants.is_empty()) else { return None };
        let map = part.factored(view.shape).ok()?;
        let around = |picks: &[Option<usize>], size: usize| {
            let before = picks.iter().position(Option::is_some)?;
            let after = picks.len().checked_sub(before + size)?;
            let whole = picks[before..before + size].iter().copied().eq((0..size).map(Some));
            (whole && picks[before + size..].iter().all(Option::is_none)).then_some([before, after])
        };
        let ([0, 0], [top, bottom], [left, right]) = (
            around(&map.channels, part.from.channels)?,
            around(&map.rows, part.from.height)?,
            around(&map.columns, part.from.width)?,
        ) else {
            return None;
        };
        Some((part.source, [top, left, bottom, right]))
    }

    /// A value of the given shape with the elements of x in their order.
    pub(super) fn placed(&mut self, x: &Traced, shape: Shape, name: &str) -> Result<usize, Refusal> {
        let value = self.settle(x, name)?;
        let own = self.shape(value);
        if own == shape {
            return Ok(value);
        }
        if own.len() != shape.len() {
            return Err(Refusal::Bad(format!("a tensor of {shape} is taken from one of {own}")));
        }
        if let Some(value) = self.reshaped.get(&(value, shape)) {
            return Ok(*value);
        }
        let placed = match self.maker(value) {
            Some((OperatorSpec::Flatten, operand)) if self.shape(operand) == shape => operand,
            _ if shape == Shape::new(own.len(), 1, 1) => {
                self.emit(&format!("{name}.flatten"), &[value], OperatorSpec::Flatten, shape)?
            }
            _ => {
                let view = match self.views.get(&value) {
                    Some(view) => view.of.clone(),
                    None => View::whole(value, own),
                };
                let view = view.reshaped(shape, &mut self.room)?;
                self.hold(view, name)
            }
        };
        self.reshaped.insert((value, shape), placed);
        Ok(placed)
    }

    /// A value whose channels are the second axis of x.
    pub(super) fn channelled(&mut self, x: &Traced, name: &str) -> Result<usize, Refusal> {
        let value = self.settle(x, name)?;
        let shape = natural(&x.dims)?;
        if x.dims.first() == Some(&1) && self.shape(value).channels == shape.channels {
            return Ok(value);
        }
        self.placed(&Traced::of(value, x.dims.clone()), shape, name)
    }
}
