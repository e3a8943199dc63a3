"""Column numbers of the packed state arrays, and the order of the rule constants.

State is packed into few arrays with named columns: an agent's numbers lie together, a kernel call unpacks a
dozen arrays instead of a hundred, and saving is copying.
"""

from __future__ import annotations

# Agent, int64: (B, N, AGENT_INTS)
(
    ALIVE,
    Y,
    X,
    BUSY,
    BUSY_LEFT,
    OBJECT,  # object in use or held, -1
    QUEUE,  # object waited for, -1
    QUEUE_SINCE,
    PORTIONS,
    INGREDIENTS,
    SHIFT,
    SHIFT_OPEN,
    WORKED,  # in this tick
    WORKED_LAST,  # in the tick before
    COVERING,
    COVERED,
    TOOK,
    HELPED,
    WORK_TICKS,
    ONTIME_TICKS,
    COVER_TICKS,
    LATE_COUNT,
    ABSENT_COUNT,  # bits in ABSENT_DAYS
    SHIFTS_DONE,
    SHIFTS_ATTENDED,
    SHIFTS_LATE,
    CHAT_READY,
    COOL_OBJECT,
    COOL_UNTIL,
    NO_FOOD,  # ticks at hunger 0
    STARVING,  # ticks at hunger <= .05
    ERRAND,
    ERRAND_UNTIL,
    HINT,  # next step of the errand: 0 none, else the action id
    LAST_ACTION,
    LAST_OK,
    LAST_TICKS,
    INVALID,
    CTX_RESET,
    SPAWNS,
    RESPAWN_AT,  # tick at which an empty slot is filled, -1 never
    GUARD_UNTIL,
    ACTED,
    EXIT,  # 0 stays, 1 faint, 2 eviction
    EVICT,
    FRESH,  # attendance records held, at most 3
    REACHED,  # 1 at the errand's place
    CAME_Y,  # the tile it stood on before its last move
    CAME_X,
    GAVE_WAY,  # in the queue that it waits in
    LAST_WORKED,  # tick of day, in this shift
    DEPARTED,  # whether its leaving this shift early has been told
    ABSENT_DAYS,  # bit d: absent d days ago
    PENDING,  # tick since which it waits for its exit, -1 never
    AGENT_INTS,
) = range(55)

# Agent, float64: (B, N, AGENT_FLOATS)
(
    HUNGER,
    HYGIENE,
    ENERGY,
    WALLET,
    EXTROVERSION,
    FORGIVENESS,
    AMBITION,
    WITHHELD,
    RECORD_0,
    RECORD_1,
    RECORD_2,
    PAID,  # in this tick
    DOCKED,  # withheld in this tick
    BONUS,
    PENALTY,
    AVOIDANCE,
    POTENTIAL,
    RETURN,  # sum of totals in the town's episode
    RUNNING,  # sum of clipped running terms in the town's episode
    AGENT_FLOATS,
) = range(20)

FREE, USING, EATING, SLEEPING, NAPPING = range(5)
PRE, ON_TIME, LATE, ABSENT, POST = range(5)
BED, FRIDGE, STOVE, SHOWER, TILL, WORKPLACE, TABLE, TYPES = range(8)
STAY, NORTH, SOUTH, EAST, WEST, USE, LEAVE, EAT, WORK, CHAT, SHARE, GIVE_WAY, COVER, TAKE, BUY, SLEEP, ACTIONS = range(
    17
)
E_IDLE, E_CAFE, E_COOK, E_SHOP, E_EAT, E_SHOWER, E_SLEEP, E_WORK, ERRANDS = range(9)

TIES = 6
TRUST, FAMILIARITY, RIVALRY = range(3)

# Object, int64: (B, M, OBJECT_INTS); the queue lies in the last four columns
QUEUE_CAPACITY = 4
USER, HELD, WAITING, QUEUE_0 = range(4)
OBJECT_INTS = QUEUE_0 + QUEUE_CAPACITY

# Tile of a map, int32: (L, H, W, TILE_INTS); what follows from the tile alone
(
    WAYS,  # bit ``action - 1``: the tile of that step is walkable
    THINGS,  # bit k: an object on the ring's tile k
    USABLE,  # bit k: a fridge, stove or shower there
    N_THINGS,
    TABLE_BESIDE,  # -1 none
    TILL_BESIDE,  # 0 or 1
    SEEN_FROM,  # rows of ``LayoutArrays.seen``
    SEEN_TO,
    TILE_INTS,
) = range(9)

# Town, int64: (B, TOWN_INTS)
(
    TICK,
    START,
    LAYOUT,
    EPISODE,
    COUNT_WORLD,
    COUNT_EVENTS,
    COUNT_POLICY,
    PERTURBATION,  # kind, -1 none
    PERTURBATION_END,
    REST_0,
    REST_1,
    REST_2,
    REST_3,
    N_CONFLICTS,
    N_CHATS,
    N_STARVED,
    N_EXITS,
    N_WELL,
    N_AGENT_TICKS,
    N_EVENTS,
    EPISODES_DONE,
    TOWN_INTS,
) = range(22)

# Town, uint64: (B, TOWN_KEYS)
SEED, KEY_WORLD, KEY_EVENTS, KEY_POLICY, TOWN_KEYS = range(5)

# Town, float64: (B, TOWN_FLOATS)
PRICE, TOWN_FLOATS = range(2)

SPIKE, BLACKOUT, OUTAGE, MEET = range(4)

(
    EV_CONFLICT,
    EV_INTERACTION,
    EV_SHARED_MEAL,
    EV_HELPED,
    EV_TOOK,
    EV_CHAT,
    EV_CHAT_FAILURE,
    EV_LATE,
    EV_ABSENT,
    EV_EXIT,
    EV_RESPAWN,
    EV_SPIKE,
    EV_BLACKOUT,
    EV_OUTAGE,
    EV_MEET,
    EV_DEPARTED,
    EV_EXIT_PENDING,
    EV_EXIT_OVERFLOW,
    EV_EXIT_PROCESSED,
    EV_EXIT_DEFERRED,
    EV_EXIT_REQUEST,
) = range(21)

(
    T_SURVIVAL,
    T_NEEDS,
    T_WAGE,
    T_PUNCTUALITY,
    T_BONUS,
    T_PENALTY,
    T_AVOIDANCE,
    T_SHAPING,
    T_CLIP,
    T_TERMINAL,
    T_TOTAL,
    TERMS,
) = range(12)

(
    KPI_ATTENDANCE,
    KPI_LATENESS,
    KPI_STARVATION,
    KPI_CONFLICTS,
    KPI_CHATS,
    KPI_WELFARE,
    KPI_GINI,
    KPI_SUSTAINABILITY,
    KPI_EXITS,
    KPIS,
) = range(10)

# Rule constants: paths in the configuration, in the order of the columns
FLOAT_PATHS: tuple[str, ...] = (
    "needs.hunger_decay",
    "needs.hygiene_decay",
    "needs.energy_decay",
    "needs.initial_low",
    "needs.initial_high",
    "needs.dirty_below",
    "needs.nap_energy",
    "economy.meal_cost",
    "economy.shower_cost",
    "economy.ingredients_cost",
    "economy.rent",
    "economy.start_wallet",
    "economy.basket",
    "affordances.meal_hunger",
    "affordances.shower_hygiene",
    "affordances.shower_energy",
    "affordances.cook_energy",
    "affordances.cook_hygiene",
    "affordances.sleep_energy",
    "affordances.sleep_below",
    "employment.late_tick_penalty",
    "employment.absence_penalty",
    "employment.cover_cost",
    "employment.cover_share",
    "employment.take_bonus",
    "rivalry.increment",
    "rivalry.decay",
    "rivalry.avoid",
    "rivalry.ghost_step_boost",
    "rivalry.handover_boost",
    "rivalry.queue_length_boost",
    "social.chat_success",
    "social.chat_trust",
    "social.chat_familiarity",
    "social.share_below",
    "perturbations.price_spike.prob_per_day",
    "perturbations.blackout.prob_per_day",
    "perturbations.outage.prob_per_day",
    "perturbations.arranged_meet.prob_per_day",
    "perturbations.spike_low",
    "perturbations.spike_high",
    "rewards.hunger_weight",
    "rewards.hygiene_weight",
    "rewards.energy_weight",
    "rewards.needs_scale",
    "rewards.survival_tick",
    "rewards.punctuality_bonus",
    "rewards.faint_penalty",
    "rewards.eviction_penalty",
    "rewards.chat_base",
    "rewards.chat_trust",
    "rewards.chat_familiarity",
    "rewards.chat_cap",
    "rewards.shared_meal",
    "rewards.avoid_conflict",
    "rewards.no_chat_above_deficit",
    "rewards.clip_per_tick",
    "rewards.clip_per_episode",
    "rewards.shaping_gamma",
    "expert.eat_below",
    "expert.shower_below",
    "expert.sleep_below",
    "expert.chat_above",
    "expert.emergency",
    "expert.cook_baskets",
    "queues.age_priority_weight",
)
(
    F_HUNGER_DECAY,
    F_HYGIENE_DECAY,
    F_ENERGY_DECAY,
    F_INITIAL_LOW,
    F_INITIAL_HIGH,
    F_DIRTY_BELOW,
    F_NAP_ENERGY,
    F_MEAL_COST,
    F_SHOWER_COST,
    F_INGREDIENTS_COST,
    F_RENT,
    F_START_WALLET,
    F_BASKET,
    F_MEAL_HUNGER,
    F_SHOWER_HYGIENE,
    F_SHOWER_ENERGY,
    F_COOK_ENERGY,
    F_COOK_HYGIENE,
    F_SLEEP_ENERGY,
    F_CAN_SLEEP_BELOW,
    F_LATE_TICK_PENALTY,
    F_ABSENCE_PENALTY,
    F_COVER_COST,
    F_COVER_SHARE,
    F_TAKE_BONUS,
    F_INCREMENT,
    F_RIVALRY_DECAY,
    F_AVOID,
    F_GHOST_BOOST,
    F_HANDOVER_BOOST,
    F_LENGTH_BOOST,
    F_CHAT_SUCCESS,
    F_CHAT_TRUST,
    F_CHAT_FAMILIARITY,
    F_SHARE_BELOW,
    F_PROB_0,
    F_PROB_1,
    F_PROB_2,
    F_PROB_3,
    F_SPIKE_LOW,
    F_SPIKE_HIGH,
    F_HUNGER_WEIGHT,
    F_HYGIENE_WEIGHT,
    F_ENERGY_WEIGHT,
    F_NEEDS_SCALE,
    F_SURVIVAL,
    F_PUNCTUALITY,
    F_FAINT,
    F_EVICTION,
    F_CHAT_BASE,
    F_BONUS_TRUST,
    F_BONUS_FAMILIARITY,
    F_CHAT_CAP,
    F_SHARED_MEAL,
    F_AVOID_CONFLICT,
    F_NO_CHAT_ABOVE,
    F_CLIP_TICK,
    F_CLIP_EPISODE,
    F_GAMMA,
    F_EAT_BELOW,
    F_SHOWER_BELOW,
    F_SLEEP_BELOW,
    F_CHAT_ABOVE,
    F_EMERGENCY,
    F_COOK_BASKETS,
    F_AGE,
) = range(66)

INT_PATHS: tuple[str, ...] = (
    "ticks_per_day",
    "horizon",
    "random_start",
    "respawn",
    "respawn_delay_ticks",
    "needs.faint_ticks",
    "needs.nap_ticks",
    "needs.night_service",
    "economy.portions",
    "economy.max_portions",
    "economy.max_ingredients",
    "affordances.meal_ticks",
    "affordances.shower_ticks",
    "affordances.cook_ticks",
    "affordances.eat_ticks",
    "affordances.sleep_ticks",
    "employment.grace_ticks",
    "employment.absent_cutoff",
    "employment.max_absent_shifts",
    "employment.daily_exit_cap",
    "employment.work_radius",
    "queues.cooldown_ticks",
    "queues.ghost_step_after",
    "queues.patience_ticks",
    "social.chat_cooldown",
    "social.modifiers",
    "perturbations.enabled",
    "perturbations.price_spike.cooldown_ticks",
    "perturbations.blackout.cooldown_ticks",
    "perturbations.outage.cooldown_ticks",
    "perturbations.arranged_meet.cooldown_ticks",
    "perturbations.price_spike.min_ticks",
    "perturbations.blackout.min_ticks",
    "perturbations.outage.min_ticks",
    "perturbations.arranged_meet.min_ticks",
    "perturbations.price_spike.max_ticks",
    "perturbations.blackout.max_ticks",
    "perturbations.outage.max_ticks",
    "perturbations.arranged_meet.max_ticks",
    "rewards.wage",
    "rewards.no_positive_within_death_ticks",
    "rewards.shaping",
    "expert.early_ticks",
    "expert.commit_ticks",
    "employment.absence_slack",
    "employment.absence_days",
    "employment.exit_queue_limit",
    "employment.exit_review_window",
)
(
    I_DAY,
    I_HORIZON,
    I_RANDOM_START,
    I_RESPAWN,
    I_RESPAWN_DELAY,
    I_FAINT_TICKS,
    I_NAP_TICKS,
    I_NIGHT_SERVICE,
    I_PORTIONS,
    I_MAX_PORTIONS,
    I_MAX_INGREDIENTS,
    I_MEAL_TICKS,
    I_SHOWER_TICKS,
    I_COOK_TICKS,
    I_EAT_TICKS,
    I_SLEEP_TICKS,
    I_GRACE,
    I_ABSENT_CUTOFF,
    I_MAX_ABSENT,
    I_EXIT_CAP,
    I_WORK_RADIUS,
    I_COOLDOWN,
    I_GHOST,
    I_PATIENCE,
    I_CHAT_COOLDOWN,
    I_MODIFIERS,
    I_PERTURBED,
    I_REST_0,
    I_REST_1,
    I_REST_2,
    I_REST_3,
    I_MIN_0,
    I_MIN_1,
    I_MIN_2,
    I_MIN_3,
    I_MAX_0,
    I_MAX_1,
    I_MAX_2,
    I_MAX_3,
    I_WAGE,
    I_DEATH_TICKS,
    I_SHAPING,
    I_EARLY,
    I_COMMIT,
    I_SLACK,
    I_ABSENCE_DAYS,
    I_EXIT_LIMIT,
    I_EXIT_WINDOW,
) = range(48)
# Constants that have no path of their own
I_STAGE, I_CREW, I_FRIDGE, I_LAYOUTS, I_VARIANT, I_STATE, I_EDIBLE, I_SIDE, INT_CONSTANTS = range(48, 57)

# Columns of ``RuleArrays.profile``; the biases are 1 where they are switched off
(
    P_EXTROVERSION,
    P_FORGIVENESS,
    P_AMBITION,
    P_HUNGER,
    P_HYGIENE,
    P_ENERGY,
    P_SURVIVAL,
    P_EMPLOYMENT,
    P_SOCIAL,
    P_CHAT,
    P_WORK,
    P_CONFLICT,
    PROFILE_COLUMNS,
) = range(13)
