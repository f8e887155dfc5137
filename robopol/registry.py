"""Where every kind of thing lives: group and kind -> the config class that builds it.

The table holds names only, so listing what exists imports nothing. A class is imported when it is
looked up. Other packages add kinds by an entry point in the group ``robopol.<group>``; nothing else
can add a name, so a checkpoint or a config can never cause an import of its own choosing.
"""

import difflib
import importlib
from importlib.metadata import entry_points

from robopol.errors import ConfigError

KINDS: dict[str, dict[str, str]] = {
    "policy": {
        "beso": "robopol.policies.beso:BESOConfig",
        "consistency": "robopol.policies.consistency:ConsistencyConfig",
        "decision_diffuser": "robopol.policies.decision_diffuser:DecisionDiffuserConfig",
        "deterministic": "robopol.policies.deterministic:DeterministicConfig",
        "diagonal_gaussian": "robopol.policies.diagonal_gaussian:DiagonalGaussianConfig",
        "diffusion": "robopol.policies.diffusion:DiffusionConfig",
        "ebt": "robopol.policies.ebt:EBTConfig",
        "edm": "robopol.policies.edm:EDMConfig",
        "flow": "robopol.policies.flow:FlowConfig",
        "gaussian": "robopol.policies.gaussian:GaussianConfig",
        "gmm": "robopol.policies.gmm:GMMConfig",
        "meow": "robopol.policies.meow:MEowConfig",
        "remote": "robopol.policies.remote.policy:RemoteConfig",
        "squashed_gaussian": "robopol.policies.squashed_gaussian:SquashedGaussianConfig",
        "steered": "robopol.steering.steered:SteeredConfig",
    },
    "model": {
        "dynamics": "robopol.models.dynamics:DynamicsConfig",
        "feasibility": "robopol.models.feasibility:FeasibilityConfig",
        "q": "robopol.models.q:QConfig",
        "state_value": "robopol.models.state_value:StateValueConfig",
        "value": "robopol.models.value:ValueConfig",
    },
    "encoder": {
        "low_dim": "robopol.policies.observation:LowDimConfig",
        "image": "robopol.policies.image_observation:ImageConfig",
    },
    "net": {
        "film_mlp": "robopol.networks.film_mlp:FiLMMLPConfig",
        "fine_tuned": "robopol.networks.fine_tuned:FineTunedConfig",
        "mlp": "robopol.networks.denoising_mlp:DenoisingMLPConfig",
        "unet": "robopol.networks.unet:UNetConfig",
        "transformer": "robopol.networks.transformer:TransformerConfig",
    },
    "energy": {
        "mlp": "robopol.networks.energy_mlp:EnergyMLPConfig",
        "transformer": "robopol.networks.energy_transformer:EnergyTransformerConfig",
    },
    "path": {
        "cosine_vp": "robopol.policies.paths.cosine_vp:CosineVPConfig",
        "discrete_vp": "robopol.policies.paths.discrete_vp:DiscreteVPConfig",
        "linear_vp": "robopol.policies.paths.linear_vp:LinearVPConfig",
        "rectified_flow": "robopol.policies.paths.rectified_flow:RectifiedFlowConfig",
        "variance_exploding": "robopol.policies.paths.variance_exploding:VarianceExplodingConfig",
    },
    "sampler": {
        "ancestral": "robopol.policies.samplers.first_order:AncestralConfig",
        "consistency": "robopol.policies.samplers.first_order:ConsistencyConfig",
        "ddim": "robopol.policies.samplers.first_order:DDIMConfig",
        "ddpm": "robopol.policies.samplers.first_order:DDPMConfig",
        "diffusers": "robopol.policies.samplers.diffusers:DiffusersConfig",
        "dpm_solver": "robopol.policies.samplers.dpm_solver:DPMSolverConfig",
        "edm": "robopol.policies.samplers.edm:EDMConfig",
        "euler": "robopol.policies.samplers.first_order:EulerConfig",
        "heun": "robopol.policies.samplers.heun:HeunConfig",
        "langevin": "robopol.policies.samplers.langevin:LangevinConfig",
    },
    "steering": {
        "agreement": "robopol.steering.agreement:AgreementConfig",
        "best_of": "robopol.steering.best_of:BestOfConfig",
        "biased_start": "robopol.steering.biased_start:BiasedStartConfig",
        "composition": "robopol.steering.composition:CompositionConfig",
        "goal_weight": "robopol.steering.goal_weight:GoalWeightConfig",
        "guide": "robopol.steering.guide:GuideConfig",
        "inner_steps": "robopol.steering.inner_steps:InnerStepsConfig",
        "inpainting": "robopol.steering.inpainting:InpaintingConfig",
        "learned_edit": "robopol.steering.learned_edit:LearnedEditConfig",
        "learned_noise": "robopol.steering.learned_noise:LearnedNoiseConfig",
        "learned_repair": "robopol.steering.learned_repair:LearnedRepairConfig",
        "mixture": "robopol.steering.mixture:MixtureConfig",
        "nudge": "robopol.steering.nudge:NudgeConfig",
        "real_time_chunking": "robopol.steering.real_time_chunking:RealTimeChunkingConfig",
        "start_noise": "robopol.steering.start_noise:StartNoiseConfig",
        "warm_start": "robopol.steering.warm_start:WarmStartConfig",
    },
    "objective": {
        "feasible": "robopol.steering.objectives.feasible:FeasibleConfig",
        "keep_away": "robopol.steering.objectives.keep_away:KeepAwayConfig",
        "outcome": "robopol.steering.objectives.outcome:OutcomeConfig",
        "point": "robopol.steering.objectives.point:PointConfig",
        "sketch": "robopol.steering.objectives.sketch:SketchConfig",
        "smoothness": "robopol.steering.objectives.smoothness:SmoothnessConfig",
        "stl": "robopol.steering.objectives.stl:STLConfig",
        "value": "robopol.steering.objectives.value:ValueConfig",
        "weighted_sum": "robopol.steering.objectives.weighted_sum:WeightedSumConfig",
        "workspace": "robopol.steering.objectives.workspace:WorkspaceConfig",
    },
    "launcher": {
        "local": "robopol.sweeps.launchers.local:LocalConfig",
        "ray": "robopol.sweeps.launchers.ray:RayConfig",
        "slurm": "robopol.sweeps.launchers.slurm:SlurmConfig",
    },
    "executor": {
        "receding_horizon": "robopol.execution.receding_horizon:RecedingHorizonConfig",
        "open_loop": "robopol.execution.open_loop:OpenLoopConfig",
        "temporal_ensemble": "robopol.execution.temporal_ensemble:TemporalEnsembleConfig",
        "warm_start": "robopol.execution.warm_start:WarmStartConfig",
        "inpainting": "robopol.execution.inpainting:InpaintingConfig",
        "real_time_chunking": "robopol.execution.real_time_chunking:RealTimeChunkingConfig",
    },
    "driver": {
        "dynamixel": "robopol.real_robot.drivers.dynamixel:DynamixelConfig",
        "feetech": "robopol.real_robot.drivers.feetech:FeetechConfig",
        "simulated": "robopol.real_robot.drivers.simulated:SimulatedConfig",
        "swaying": "robopol.real_robot.drivers.swaying:SwayingConfig",
        "ur": "robopol.real_robot.drivers.ur:URConfig",
    },
    "operator": {
        "gamepad": "robopol.real_robot.operators.gamepad:GamepadConfig",
        "keyboard": "robopol.real_robot.operators.keyboard:KeyboardConfig",
        "leader": "robopol.real_robot.operators.leader:LeaderConfig",
    },
    "camera": {
        "opencv": "robopol.real_robot.cameras.opencv:OpenCVConfig",
        "rendered": "robopol.real_robot.cameras.rendered:RenderedConfig",
    },
    "merging": {
        "blend": "robopol.real_robot.merging:BlendConfig",
        "continue": "robopol.real_robot.merging:ContinueConfig",
        "ensemble": "robopol.real_robot.merging:EnsembleConfig",
        "replace": "robopol.real_robot.merging:ReplaceConfig",
    },
    "sampling": {
        "uniform": "robopol.data.sampling:UniformConfig",
        "trajectory_weighted": "robopol.data.weighting:TrajectoryWeightedConfig",
        "top_k": "robopol.data.weighting:TopKConfig",
        "interventions": "robopol.data.weighting:InterventionsConfig",
        "hindsight": "robopol.data.hindsight:HindsightConfig",
    },
    "wrapper": {
        "action_repeat": "robopol.envs.wrappers.action_repeat:ActionRepeatConfig",
        "asked_way": "robopol.envs.wrappers.asked_way:AskedWayConfig",
        "camera": "robopol.envs.wrappers.camera:CameraConfig",
        "concatenate": "robopol.envs.wrappers.keys:ConcatenateConfig",
        "constant": "robopol.envs.wrappers.constant:ConstantConfig",
        "final_limit": "robopol.envs.wrappers.final_limit:FinalLimitConfig",
        "frame_stack": "robopol.envs.wrappers.frame_stack:FrameStackConfig",
        "latency": "robopol.envs.wrappers.latency:LatencyConfig",
        "observation_noise": "robopol.envs.wrappers.observation_noise:ObservationNoiseConfig",
        "select": "robopol.envs.wrappers.keys:SelectConfig",
        "reward": "robopol.envs.wrappers.reward:RewardConfig",
        "success": "robopol.envs.wrappers.success:SuccessConfig",
        "time_limit": "robopol.envs.wrappers.time_limit:TimeLimitConfig",
    },
    "algo": {
        "bc": "robopol.algos.bc:BCConfig",
        "cal_ql": "robopol.algos.cal_ql:CalQLConfig",
        "ddpg": "robopol.algos.ddpg:DDPGConfig",
        "diffusion_ql": "robopol.algos.diffusion_ql:DiffusionQLConfig",
        "distill": "robopol.algos.distill:DistillConfig",
        "dppo": "robopol.algos.dppo:DPPOConfig",
        "dsrl": "robopol.algos.dsrl:DSRLConfig",
        "dsrl_sac": "robopol.algos.dsrl_sac:DSRLSACConfig",
        "dynamics": "robopol.algos.dynamics:DynamicsConfig",
        "expo": "robopol.algos.expo:EXPOConfig",
        "fisor": "robopol.algos.fisor:FISORConfig",
        "fixpo": "robopol.algos.fixpo:FixPOConfig",
        "fpo": "robopol.algos.fpo:FPOConfig",
        "fql": "robopol.algos.fql:FQLConfig",
        "iql": "robopol.algos.iql:IQLConfig",
        "meow": "robopol.algos.meow:MEowConfig",
        "ppo": "robopol.algos.ppo:PPOConfig",
        "repair": "robopol.algos.repair:RepairConfig",
        "sb3": "robopol.algos.sb3:SB3Config",
        "sac": "robopol.algos.sac:SACConfig",
        "spo": "robopol.algos.spo:SPOConfig",
        "td3": "robopol.algos.td3:TD3Config",
        "td3_bc": "robopol.algos.td3_bc:TD3BCConfig",
        "trpo": "robopol.algos.trpo:TRPOConfig",
    },
    "scoring": {
        "denoising": "robopol.algos.scoring.denoising:DenoisingConfig",
        "density": "robopol.algos.scoring.density:DensityConfig",
        "flow_matching": "robopol.algos.scoring.flow_matching:FlowMatchingConfig",
    },
    "surrogate": {
        "clip": "robopol.algos.surrogates:ClipConfig",
        "discovered": "robopol.algos.surrogates:DiscoveredConfig",
        "simple": "robopol.algos.surrogates:SimpleConfig",
        "asymmetric": "robopol.algos.surrogates:AsymmetricConfig",
        "unclipped": "robopol.algos.surrogates:UnclippedConfig",
    },
    "violation": {
        "bound": "robopol.algos.violations:BoundConfig",
        "cost": "robopol.algos.violations:CostConfig",
    },
    "distillation": {
        "same_noise": "robopol.algos.distill:SameNoiseConfig",
        "trajectory": "robopol.algos.distill:TrajectoryConfig",
    },
}
"""group -> kind -> ``module:class`` of a `robopol.config.Config` with a ``build`` method."""


def kinds(group: str) -> dict[str, str]:
    """Return the kinds of a group, robopol's own and those of installed plugins.

    Args:
        group: A group of `KINDS`, e.g. ``"policy"``.

    Returns:
        Kind -> ``module:class``.

    Raises:
        ConfigError: If there is no such group.
    """
    if group not in KINDS:
        raise ConfigError(f"there is no group '{group}'; the groups are {', '.join(KINDS)}")
    plugins = {point.name: point.value for point in entry_points(group=f"robopol.{group}")}
    return plugins | KINDS[group]


def lookup(group: str, kind: str) -> type:
    """Import and return the config class of a kind.

    Args:
        group: A group of `KINDS`.
        kind: A kind in that group.

    Returns:
        The config class.

    Raises:
        ConfigError: If the kind is unknown; the nearest names are given.
    """
    place = KINDS.get(group, {}).get(kind)
    if place is None:  # plugins are looked for among all that is installed, which takes a while
        known = kinds(group)
        if kind not in known:
            raise ConfigError(f"unknown {group} '{kind}'{nearest(kind, known)}; known: {', '.join(sorted(known))}")
        place = known[kind]
    module, name = place.split(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def nearest(name: str, names: object) -> str:
    """Return " (did you mean ...?)" for the names closest to ``name``, or an empty string.

    Args:
        name: What was written.
        names: An iterable of the names that exist.
    """
    close = difflib.get_close_matches(name, [str(n) for n in names], n=3, cutoff=0.5)  # type: ignore[attr-defined]
    return f" (did you mean {' or '.join(close)}?)" if close else ""
