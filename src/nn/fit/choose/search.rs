//! The search: forms from the cheapest upwards, each at the widest margin that keeps the answers, then layers given back to a
//! cheaper form.

use super::{ChooseError, ChooseOptions, NotRun, TriedFit, Watch};
use crate::nn::calibration::Calibration;
use crate::nn::fit::{FitError, FitSpec, Fits, Form};
use crate::nn::model::{Model, Operator};
use crate::nn::simulate::{ExactAnswers, Labelled, LayerUse, Outcomes, Simulation, Tail};
use rayon::prelude::*;
use std::time::Instant;

/// Pictures that settle which forms need no closer look.
const FEW: usize = 128;
/// What a form loses is taken to fall with its margin to this power: that of errors at a bend is 1. A form that loses too many by this at
/// the narrowest margin is not looked at closer, nor at narrower margins.
const FALLS: i32 = 2;
/// Pictures that settle which floor is best, and that show at once that a form is far too coarse.
const GLANCE: usize = 32;
/// A form that should lose so many times what is allowed, by a glance at one floor, is not tried at the others. It is
/// set wide, since it was not measured how much floors change.
const FAR: f64 = 30.0;
/// How much wider than the others the interval of a layer may be made whose values reach far out now and then.
const WIDER: [f64; 4] = [1.0, 1.25, 1.5, 2.0];
/// Costs that differ by less than this factor count as alike.
const ALIKE: f64 = 1.05;
/// A mixture of two forms must be this many times cheaper than one alone: with every layer given back it goes nearer to the edge
/// of what may be lost.
const WORTHWHILE: f64 = 1.1;
/// Pictures that say which layers' errors matter most.
const SAMPLED: usize = 16;

/// What a search tries, and what it has tried.
pub(super) struct Search<'a> {
    pub model: &'a Model,
    /// The same, where what calibration saw bounds values that no activation does.
    pub bounded: &'a Model,
    pub calibration: &'a Calibration,
    /// Pictures to judge by, those that took no part in the fit first.
    pub pictures: &'a [Labelled],
    /// Exact answers to those.
    pub exact: &'a ExactAnswers,
    pub options: &'a ChooseOptions,
    pub cost: &'a super::Cost<'a>,
    pub watch: &'a dyn Watch,
    pub tried: Vec<TriedFit>,
    /// Pictures that are still to be simulated, at most.
    pub ahead: usize,
    /// Pictures simulated, and the seconds that took.
    pub simulated: (usize, f64),
    pub fits: &'a Fits,
    /// What became of the pictures with fits that were tried.
    pub outcomes: Vec<(Vec<FitSpec>, Outcomes)>,
}

/// Forms with their costs, the cheapest first, and why another has none.
type Planned = (Vec<(Form, f64)>, Option<NotRun>);

/// Whether an activation is fitted by several polynomials.
fn has_composites(model: &Model) -> bool {
    model.nodes().iter().any(|n| matches!(&n.operator, Operator::Fitted(fitted) if fitted.degrees().len() > 1))
}

impl Search<'_> {
    /// The specs to take and what their plan costs.
    pub(super) fn run(&mut self) -> Result<(Vec<FitSpec>, f64), ChooseError> {
        let forms = self.forms()?;
        let (mut fell_short, mut kept): (Vec<usize>, Vec<TriedFit>) = Default::default();
        let mut most = f64::INFINITY;
        for (i, (form, cost)) in forms.iter().enumerate() {
            if *cost > most || !self.watch.goes_on() {
                break;
            }
            self.ahead = self.pictures_of_mix() + (forms.len() - i) * self.options.margins.len() * self.pictures_of_margin();
            let best = self.best_of(form, *cost)?;
            match best.filter(|at| self.tried[*at].keeps) {
                Some(at) => {
                    // Those that cost about as much are tried too: less error for nothing.
                    most = most.min(ALIKE * cost);
                    kept.push(self.tried[at].clone());
                }
                None => fell_short.extend(best),
            }
        }
        let best = kept.into_iter().min_by(|a, b| a.lost().total_cmp(&b.lost()));
        let Some(dear) = best else { return Err(self.nothing_keeps()) };
        self.ahead = self.pictures_of_mix();
        // The form to give layers back to: of those that are notably cheaper, the one that fell short the least.
        let cheaper = fell_short.iter().map(|at| &self.tried[*at]).filter(|c| WORTHWHILE * c.cost < dear.cost);
        let cheaper = cheaper.min_by(|a, b| a.lost().total_cmp(&b.lost())).map(|c| c.specs[0].clone());
        if let Some(cheap) = cheaper.filter(|_| self.options.per_layer && self.watch.goes_on()) {
            let dear_form = dear.specs[0].form.clone();
            if let Some(mixed) = self.mix(&cheap, dear_form, dear.cost / WORTHWHILE)? {
                return Ok(mixed);
            }
        }
        Ok((dear.specs, dear.cost))
    }

    fn nothing_keeps(&self) -> ChooseError {
        let best = self.tried.iter().min_by(|a, b| a.lost().total_cmp(&b.lost()));
        let (target, tried) = (self.options.target, self.tried.len());
        if !self.watch.goes_on() {
            return ChooseError::Stopped { tried, expected: best.map_or(0.0, |b| b.expected), needed: self.options.needed() };
        }
        match best {
            Some(best) => ChooseError::TargetNotReached {
                target,
                needed: self.options.needed(),
                agreement: best.agreement,
                expected: best.expected,
                outside: best.outside,
                form: best.specs[0].form.clone(),
                margin: best.specs[0].margin,
                pictures: best.pictures,
                tried,
            },
            None => self.no_plan(NotRun::NothingToTry("margins or floors")),
        }
    }

    fn no_plan(&self, reason: NotRun) -> ChooseError {
        ChooseError::NoPlan { forms: self.options.forms.len(), reason }
    }

    /// Pictures that one margin of a form takes at most.
    fn pictures_of_margin(&self) -> usize {
        let all = self.pictures.len();
        let few = if all < 2 * FEW { all } else { FEW };
        GLANCE.min(few) * self.options.floors.len() + all
    }

    /// Pictures that giving layers back takes at most.
    fn pictures_of_mix(&self) -> usize {
        let count = self.calibration.layers.len();
        if self.options.per_layer { count * SAMPLED + (1 + count.max(1).ilog2() as usize) * self.pictures.len() } else { 0 }
    }

    /// The forms that can be run, cheapest first. Where some cannot, values that no activation bounds are bootstrapped too, by the
    /// magnitudes that calibration saw, if more can then: such values are stored within [-1, 1], which may cost them some bits.
    fn forms(&mut self) -> Result<Vec<(Form, f64)>, ChooseError> {
        self.watch.planning(self.options.forms.len());
        let (mut forms, mut reason) = self.forms_by_cost()?;
        if matches!(reason, Some(NotRun::Cost(_))) && self.watch.goes_on() {
            let free = std::mem::replace(&mut self.model, self.bounded);
            let (more, why) = self.forms_by_cost()?;
            if more.len() > forms.len() || forms.is_empty() {
                (forms, reason) = (more, why);
            } else {
                self.model = free;
            }
        }
        if !self.watch.goes_on() {
            return Err(ChooseError::Stopped { tried: 0, expected: 0.0, needed: self.options.needed() });
        }
        if forms.is_empty() {
            return Err(self.no_plan(reason.unwrap_or(NotRun::NothingToTry("forms"))));
        }
        Ok(forms)
    }

    /// Those that the model as it is can be run with, and why another cannot. What a form costs does not depend on margins and floors.
    fn forms_by_cost(&self) -> Result<Planned, ChooseError> {
        let one = |form: &Form| {
            if !self.watch.goes_on() {
                return Ok(None);
            }
            let spec = FitSpec { form: form.clone(), ..FitSpec::series(1) };
            let narrow = self.options.margins.iter().copied().fold(spec.margin, f64::min);
            let fitted = self.fit(std::slice::from_ref(&spec)).or_else(|e| match e {
                FitError::Undefined { .. } if narrow < spec.margin => self.fit(&[FitSpec { margin: narrow, ..spec }]),
                e => Err(e),
            });
            match fitted {
                // One polynomial is nearer for every layer: another form.
                Ok(fitted) if matches!(form, Form::Composite(_)) && !has_composites(&fitted) => Ok(None),
                Ok(fitted) => Ok(Some((self.cost)(&fitted).map(|cost| (form.clone(), cost)).map_err(NotRun::Cost))),
                Err(e @ FitError::Approximation { .. }) => Ok(Some(Err(NotRun::Fit(e)))),
                Err(e) => Err(e),
            }
        };
        let found: Vec<Option<Result<(Form, f64), NotRun>>> =
            self.options.forms.par_iter().map(one).collect::<Result<_, FitError>>()?;
        let (mut forms, mut reason) = (Vec::with_capacity(found.len()), None);
        for form in found.into_iter().flatten() {
            match form {
                Ok(form) => forms.push(form),
                // What stands in the way of the first that could be fitted says most.
                Err(_) if matches!(reason, Some(NotRun::Cost(_))) => {}
                Err(e) => reason = Some(e),
            }
        }
        forms.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok((forms, reason))
    }

    /// Tries the margins of a form, the widest first, until one keeps the answers: the index of that one, else of the one that
    /// loses least among those that stay in their intervals; none if there is no hope. A margin that reaches where a function is not
    /// defined is left out, unless all do.
    fn best_of(&mut self, form: &Form, cost: f64) -> Result<Option<usize>, ChooseError> {
        let mut margins = self.options.margins.clone();
        margins.sort_by(|a, b| b.total_cmp(a));
        let mut best: Option<usize> = None;
        let mut undefined = None;
        let mut defined = false;
        let ahead = self.ahead;
        for (i, margin) in margins.into_iter().enumerate() {
            if !self.watch.goes_on() {
                break;
            }
            self.ahead = ahead.saturating_sub((i + 1) * self.pictures_of_margin());
            let at = match self.best_floor(form, margin, cost) {
                Err(ChooseError::Fit(e @ FitError::Undefined { .. })) => {
                    undefined = Some(e);
                    continue;
                }
                at => at?,
            };
            defined = true;
            let found = &self.tried[at];
            if found.keeps {
                return Ok(Some(at));
            }
            if self.is_hopeless(found) {
                break;
            }
            let at = match self.widened(at)? {
                Some(wider) if self.tried[wider].keeps => return Ok(Some(wider)),
                Some(wider) => wider,
                None => at,
            };
            let found = &self.tried[at];
            if self.stays_inside(found) && best.is_none_or(|b| found.lost() < self.tried[b].lost()) {
                best = Some(at);
            }
        }
        match undefined {
            Some(e) if !defined => Err(e.into()),
            _ => Ok(best),
        }
    }

    /// Whether no picture left an interval, and hardly any unseen one should.
    fn stays_inside(&self, found: &TriedFit) -> bool {
        found.used <= 1.0 && found.outside <= self.options.most_outside()
    }

    /// Whether too many answers should be lost at the narrowest margin too. By errors alone: which pictures leave an interval is mended by
    /// [`Self::widened`].
    fn is_hopeless(&self, found: &TriedFit) -> bool {
        let margin = found.specs.iter().fold(0.0, |m: f64, s| m.max(s.margin));
        let narrowest = self.options.margins.iter().copied().fold(margin, f64::min);
        (1.0 - found.expected) * (narrowest / margin).powi(FALLS) > 1.0 - self.options.needed()
    }

    /// A fit that keeps the answers but for the pictures that should leave an interval, with longer intervals for the layers that they
    /// should leave; none if it is no such fit. The length of the others is what makes most of the error.
    fn widened(&mut self, at: usize) -> Result<Option<usize>, ChooseError> {
        let (tried, all) = (self.tried[at].clone(), self.pictures.len());
        let [spec] = &tried.specs[..] else { return Ok(None) };
        if self.stays_inside(&tried) || tried.pictures < all || !self.watch.goes_on() {
            return Ok(None);
        }
        let (_, found) = self.simulate(&tried.specs, all)?;
        if !self.options.keeps(&found) {
            return Ok(None);
        }
        // Half of what is allowed, as intervals do not grow by quite the same factor.
        let share = self.options.most_outside() / (2.0 * found.layers.len() as f64);
        let wide_enough = |tail: Option<Tail>| {
            let enough = WIDER.into_iter().find(|wider| tail.is_none_or(|tail| tail.beyond(*wider) <= share));
            enough.unwrap_or(WIDER[WIDER.len() - 1])
        };
        let wider = |layer: &LayerUse| FitSpec { margin: spec.margin * wide_enough(layer.tail), ..spec.clone() };
        let specs = found.layers.iter().map(wider).collect();
        match self.judged(specs, tried.cost, all) {
            Ok(wider) => Ok(Some(self.note(wider))),
            // The longer interval reaches where a function has no value.
            Err(ChooseError::Fit(FitError::Undefined { .. })) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The floor of least error on a few pictures, and what all pictures say of it; or what the few do, if that leaves no hope.
    fn best_floor(&mut self, form: &Form, margin: f64, cost: f64) -> Result<usize, ChooseError> {
        let floors = match form {
            Form::Series(_) => self.options.floors.as_slice(),
            // A composite is near everywhere: floors change little, and it takes long to fit.
            Form::Composite(_) => {
                self.options.floors.get(self.options.floors.len() / 2..).map_or(&[][..], |f| &f[..f.len().min(1)])
            }
        };
        let all = self.pictures.len();
        let few = if all < 2 * FEW { all } else { FEW };
        let spec = |floor: &f64| FitSpec { form: form.clone(), margin, floor: *floor };
        let glance = if few >= 2 * GLANCE { GLANCE } else { few };
        if let (Some(middle), true) = (floors.get(floors.len() / 2), glance < few) {
            let found = self.judged(vec![spec(middle)], cost, glance)?;
            if found.lost() > FAR * (1.0 - self.options.needed()) {
                return Ok(self.note(found));
            }
        }
        let mut found = Vec::with_capacity(floors.len());
        for floor in floors {
            found.push(self.judged(vec![spec(floor)], cost, glance)?);
        }
        let Some(best) = found.into_iter().min_by(|a, b| a.rms_error.total_cmp(&b.rms_error)) else {
            return Err(self.no_plan(NotRun::NothingToTry("floors")));
        };
        let best = if glance < few { self.judged(best.specs, cost, few)? } else { best };
        let settled = if few == all || self.is_hopeless(&best) { best } else { self.judged(best.specs, cost, all)? };
        Ok(self.note(settled))
    }

    fn note(&mut self, tried: TriedFit) -> usize {
        let (pictures, seconds) = self.simulated;
        self.watch.tried(&tried, self.ahead as f64 * seconds / pictures.max(1) as f64);
        self.tried.push(tried);
        self.tried.len() - 1
    }

    fn fit(&self, specs: &[FitSpec]) -> Result<Model, FitError> {
        self.fits.fit(self.model, self.calibration, specs)
    }

    /// Some fits, and what became of the first `count` pictures with them. No picture is simulated twice with the same.
    pub(super) fn simulate(&mut self, specs: &[FitSpec], count: usize) -> Result<(Model, Simulation), ChooseError> {
        let clock = Instant::now();
        let fitted = self.fit(specs)?;
        let known = self.outcomes.iter().position(|(of, _)| of == specs);
        let (specs, mut outcomes) =
            known.map_or_else(|| (specs.to_vec(), Outcomes::default()), |at| self.outcomes.swap_remove(at));
        let pictures = &self.pictures[..count];
        let fresh = count.saturating_sub(outcomes.len());
        let found = outcomes.simulate_against(self.exact, &fitted, pictures, (self.options.noise, self.options.seed))?;
        self.outcomes.push((specs, outcomes));
        self.simulated = (self.simulated.0 + fresh, self.simulated.1 + clock.elapsed().as_secs_f64());
        Ok((fitted, found))
    }

    /// What the first `count` pictures say of some fits.
    fn judged(&mut self, specs: Vec<FitSpec>, cost: f64, count: usize) -> Result<TriedFit, ChooseError> {
        let (_, s) = self.simulate(&specs, count)?;
        let used = s.layers.iter().fold(0.0, |m: f64, l| m.max(l.used));
        let mut tried = TriedFit {
            specs,
            cost,
            pictures: s.pictures,
            agreement: s.agreement(),
            expected: s.expected_agreement,
            outside: s.expected_outside,
            rms_error: if s.diverged == 0 { s.rms_error } else { f64::INFINITY },
            used,
            keeps: false,
        };
        tried.keeps = self.stays_inside(&tried) && self.options.keeps(&s);
        Ok(tried)
    }

    /// Between two forms: as few layers as possible in the dear one, those first whose error matters most, all at the margin and
    /// floor of the cheap one. None if that costs no less than `most`, or does not keep the answers.
    fn mix(&mut self, cheap: &FitSpec, dear: Form, most: f64) -> Result<Option<(Vec<FitSpec>, f64)>, ChooseError> {
        let dear = FitSpec { form: dear, ..cheap.clone() };
        let count = self.calibration.layers.len();
        let few = self.pictures.len().min(SAMPLED);
        let specs_with = |dear_layers: &[usize]| {
            let mut specs = vec![cheap.clone(); count];
            dear_layers.iter().for_each(|k| specs[*k] = dear.clone());
            specs
        };
        let cost_with = |dear_layers: &[usize]| -> Result<f64, FitError> {
            let fitted = self.fits.fit(self.model, self.calibration, &specs_with(dear_layers))?;
            Ok((self.cost)(&fitted).unwrap_or(f64::INFINITY))
        };
        // Where a single dear layer costs too much, wherever it is, no more need be known of the layers.
        let places = [0, count / 2, count.saturating_sub(1)];
        let cheapest = places.map(|place| cost_with(&[place]));
        if cheapest.into_iter().collect::<Result<Vec<_>, _>>()?.iter().all(|cost| *cost > most) {
            return Ok(None);
        }
        let mut harm = Vec::with_capacity(count);
        for k in 0..count {
            let mut specs = vec![dear.clone(); count];
            specs[k] = cheap.clone();
            if !self.watch.goes_on() {
                return Ok(None);
            }
            let (_, s) = self.simulate(&specs, few)?;
            self.ahead = self.ahead.saturating_sub(few);
            harm.push((if s.diverged == 0 { s.rms_error } else { f64::INFINITY }, k));
        }
        harm.sort_by(|a, b| b.0.total_cmp(&a.0));
        let dearest: Vec<usize> = harm.iter().map(|(_, k)| *k).collect();
        let cost_of = |dear_layers: usize| cost_with(&dearest[..dear_layers]);
        // The most dear layers that are still cheap enough, without a simulation.
        let (mut keeps, mut too_dear) = (0, count);
        while too_dear - keeps > 1 {
            let middle = (keeps + too_dear) / 2;
            if cost_of(middle)? <= most { keeps = middle } else { too_dear = middle }
        }
        // If those keep the answers, the fewest that do.
        let mut best: Option<(Vec<FitSpec>, f64)> = None;
        let (mut fails, mut next) = (0, keeps);
        while next > fails && self.watch.goes_on() {
            self.ahead = self.ahead.saturating_sub(self.pictures.len());
            let cost = cost_of(next)?;
            let tried = self.judged(specs_with(&dearest[..next]), cost, self.pictures.len())?;
            let at = self.note(tried);
            if self.tried[at].keeps {
                keeps = next;
                if best.as_ref().is_none_or(|(_, c)| cost < *c) {
                    best = Some((self.tried[at].specs.clone(), cost));
                }
            } else if best.is_none() {
                return Ok(None);
            } else {
                fails = next;
            }
            next = (fails + keeps) / 2;
        }
        Ok(best)
    }
}
