//! What a run proposes next. A candidate depends on the run's seed, on its number, and on the verdicts that are
//! known; so one worker proposes the same each time.

use std::collections::HashMap;

use normact_ir::Layer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::fitness::Fitness;
use crate::genotype::Genotype;
use crate::history::History;
use crate::options::{Evolution, Options, Strategy};
use crate::selection::{happens, tournament};
use crate::store::{Batch, Fate, Origin, Progress, Proposal, Run, Store, StoreError};
use crate::structure::{Look, Looks};

/// The most candidates that are drawn before the store is told: what a worker that is killed has to draw again,
/// and what is drawn in vain when another worker proposes for the same run.
const MAX_BATCH: usize = 64;

pub(crate) struct Proposer<'a> {
    options: &'a Options,
    runs: Vec<Run>,
    histories: HashMap<i64, History>,
    looks: Looks,
}

/// A candidate before its fate is known.
struct Drawn {
    origin: Origin,
    /// The genotype, or the name of a fixed layer.
    graph: String,
    layer: Layer,
    look: Look,
}

impl<'a> Proposer<'a> {
    pub(crate) fn new(options: &'a Options, runs: Vec<Run>) -> Self {
        Self { options, runs, histories: HashMap::new(), looks: Looks::new(options.mere_statistics) }
    }

    /// Forgets what was read from the store.
    pub(crate) fn forget(&mut self) {
        self.histories.clear();
    }

    /// Takes back what the store has not taken.
    pub(crate) fn take_back(&mut self, batch: &Batch) {
        if let Some(history) = self.histories.get_mut(&batch.run) {
            history.take_back(batch);
        }
    }

    /// The layer of a graph.
    pub(crate) fn layer(&self, graph: &str) -> Result<Layer, StoreError> {
        if let Some((_, layer)) = self.options.fixed.iter().find(|(name, _)| name == graph) {
            return Ok(layer.clone());
        }
        Ok(self.genotype(graph)?.layer("candidate"))
    }

    fn genotype(&self, graph: &str) -> Result<Genotype, StoreError> {
        self.options.space.parse(graph).map_err(|error| StoreError::Damaged(error.to_string()))
    }

    /// The next candidates of a run: those that cost nothing, and the first one that may.
    pub(crate) fn batch(
        &mut self,
        store: &mut Store,
        progress: &Progress,
        fitness: &dyn Fitness,
    ) -> Result<Batch, StoreError> {
        let run = self.runs.iter().find(|run| run.id == progress.id).ok_or(StoreError::NoSearch)?.clone();
        let strategy = Strategy::by_name(&run.strategy)
            .ok_or_else(|| StoreError::Damaged(format!("the strategy `{}`", run.strategy)))?;
        // Owned meanwhile, as candidates are drawn from it and added to it in turn.
        let mut history = self.histories.remove(&run.id).unwrap_or_default();
        history.catch_up(store, progress, self.options.evolution.population)?;
        let (first, finished) = (history.proposed, history.finished);
        let mut batch = Batch { run: run.id, protocol: strategy.protocol(), first, finished, proposals: vec![] };
        let is_spent =
            |history: &History| Progress { proposed: history.proposed, spent: history.spent, ..*progress }.is_spent();
        while batch.proposals.len() < MAX_BATCH && !is_spent(&history) {
            let proposal = self.proposal(&run, strategy, &history, fitness)?;
            history.add(&proposal);
            // Once the budget is touched another run may be the next. Where a batch ends must not depend on what
            // a worker happens to know, or a search that is gone on with would go another way.
            let is_last = proposal.spends || matches!(proposal.fate, Fate::Asked(_));
            batch.proposals.push(proposal);
            if is_last {
                break;
            }
        }
        self.histories.insert(run.id, history);
        Ok(batch)
    }

    fn proposal(
        &mut self,
        run: &Run,
        strategy: Strategy,
        history: &History,
        fitness: &dyn Fitness,
    ) -> Result<Proposal, StoreError> {
        let Drawn { origin, graph, layer, look: Look { key, problem } } = self.draw(run, strategy, history)?;
        // A look at the structure costs nothing, so it is not one of the tests that random search does without.
        let problem = match strategy {
            Strategy::Fixed => None,
            Strategy::Evolution | Strategy::RandomTested | Strategy::Random => {
                problem.map(str::to_owned).or_else(|| fitness.structure(&layer))
            }
        };
        let known = history.of(key);
        let fate = match (problem, known) {
            // A spelling that is rejected for its structure says nothing of an equal layer that is not.
            (Some(problem), _) => Fate::Rejected(problem),
            (None, Some(Some(verdict))) => Fate::Known(verdict.clone()),
            (None, _) => Fate::Asked(self.options.evaluation_seed),
        };
        let is_duplicate = known.is_some();
        // Given layers are as many as the budget says, also where two of them are equal.
        let spends = strategy == Strategy::Fixed || (!is_duplicate && !matches!(fate, Fate::Rejected(_)));
        Ok(Proposal { origin, graph, key, is_duplicate, spends, fate })
    }

    fn draw(&mut self, run: &Run, strategy: Strategy, history: &History) -> Result<Drawn, StoreError> {
        let number = history.proposed;
        let mut rng = ChaCha8Rng::seed_from_u64(run.seed);
        rng.set_stream(number);
        let (origin, genotype) = match strategy {
            Strategy::Fixed => {
                let at = usize::try_from(number).unwrap_or(usize::MAX);
                let (name, layer) = self.options.fixed.get(at).ok_or_else(|| {
                    StoreError::Damaged(format!("fixed layer {number}, of {}", self.options.fixed.len()))
                })?;
                let (graph, layer) = (name.clone(), layer.clone());
                return Ok(Drawn { origin: Origin::Fixed, graph, look: self.looks.at_layer(&layer.dag), layer });
            }
            Strategy::Random | Strategy::RandomTested => (Origin::Fresh, self.options.space.draw(&mut rng)),
            Strategy::Evolution => self.evolve(number, history, &mut rng)?,
        };
        let (graph, layer) = (genotype.to_string(), genotype.layer("candidate"));
        Ok(Drawn { origin, graph, layer, look: self.looks.at(&genotype) })
    }

    fn evolve(&self, number: u64, history: &History, rng: &mut ChaCha8Rng) -> Result<(Origin, Genotype), StoreError> {
        let Evolution { population, tournament: share, winner, mutations, fresh, initial } = self.options.evolution;
        let (space, parents) = (&self.options.space, history.parents());
        let is_fresh = number < initial as u64 || happens(fresh, rng);
        let parent = if is_fresh { None } else { tournament(&parents.scores, population, share, winner, rng) };
        let Some(parent) = parent else { return Ok((Origin::Fresh, space.draw(rng))) };
        let mut child = self.genotype(&parents.graphs[parent])?;
        (0..mutations).for_each(|_| space.mutate(&mut child, rng));
        Ok((Origin::Child { parent: parents.numbers[parent], mutations: mutations as u64 }, child))
    }
}
