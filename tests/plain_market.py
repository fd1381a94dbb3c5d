"""Labels, trades and accounts a second time: plain Python that follows the documented rules and nothing else.

Slow on purpose. Nothing here comes from `cryptolab`, so that a fault of the library cannot be repeated here unnoticed.
Times are whole minutes, missing values are None, a coin is a list of candles in the order of time.
"""
import math
from bisect import bisect_right
from typing import NamedTuple


class Candle(NamedTuple):
    "One candle; `time` is its open time."

    time: int
    open: float
    high: float
    low: float
    close: float


# ---------------------------------------------------------------- volatility


def true_ranges(candles, step):
    "High − low, extended to the previous close unless candles are missing before this one."
    ranges = []
    for i, candle in enumerate(candles):
        reach = [candle.high - candle.low]
        if i and candle.time - candles[i - 1].time == step:
            before = candles[i - 1].close
            reach += [abs(candle.high - before), abs(candle.low - before)]
        ranges.append(max(reach))
    return ranges


def wilder(values, window):
    "The plain mean of the first `window` values, then mean ← (mean · (window − 1) + value) / window; None before."
    means = [None] * min(window - 1, len(values))
    if len(values) >= window:
        mean = sum(values[:window]) / window
        means.append(mean)
        for value in values[window:]:
            mean = (mean * (window - 1) + value) / window
            means.append(mean)
    return means


# ---------------------------------------------------------------- labels of the next candles


def without_gap(candles, step, i, j):
    "Whether candles i … j follow each other without one missing."
    return candles[j].time - candles[i].time == (j - i) * step and all(
        candles[k + 1].time - candles[k].time == step for k in range(i, j)
    )


def outcome(candles, step, i, ahead, question):
    "What `question` says of row i, whose answer needs `ahead` more candles; None where these are not all there."
    if i + ahead >= len(candles) or not without_gap(candles, step, i, i + ahead):
        return None
    return question(i)


def simple_labels(candles, step, horizon, gap, band, window):
    "All labels but the triple barrier, by the name of the library's function."
    close = [c.close for c in candles]
    ranges = true_ranges(candles, step)
    atr = wilder(ranges, window)

    def squares(i):
        return sum((math.log(close[j]) - math.log(close[j - 1])) ** 2 for j in range(i + 1, i + horizon + 1))

    def widths(i):
        return sum(math.log(c.high / c.low) ** 2 for c in candles[i + 1 : i + horizon + 1])

    def sign_outside_band(i):
        move = close[i + horizon] / close[i] - 1
        return 0.0 if abs(move) <= band else math.copysign(1.0, move)

    questions = {
        "next_direction": (1 + gap, lambda i: float(close[i + 1 + gap] > close[i + gap])),
        "next_log_return": (1, lambda i: math.log(close[i + 1] / close[i])),
        "natr_next": (1, lambda i: None if atr[i + 1] is None else atr[i + 1] / close[i + 1]),
        "natr_future": (window, lambda i: sum(ranges[i + 1 : i + window + 1]) / window / close[i + window]),
        "rv_future": (horizon, lambda i: math.sqrt(squares(i))),
        "parkinson_future": (horizon, lambda i: math.sqrt(widths(i) / (4 * math.log(2)))),
        "horizon_return": (horizon, lambda i: math.log(close[i + horizon] / close[i])),
        "horizon_direction": (horizon + gap, lambda i: float(close[i + horizon + gap] > close[i + gap])),
        "three_class": (horizon, sign_outside_band),
        "touch": (
            horizon,
            lambda i: float(max(c.high for c in candles[i + 1 : i + horizon + 1]) >= close[i] * (1 + band)),
        ),
    }
    return {
        name: (ahead, [outcome(candles, step, i, ahead, question) for i in range(len(candles))])
        for name, (ahead, question) in questions.items()
    }


# ---------------------------------------------------------------- one trade


class Exit(NamedTuple):
    "Where and why a trade ended; both: a candle met stop and target, and the stop was assumed (1), or was not (2)."

    row: int
    price: float
    reason: str
    both: int = 0


def met(candle, long, stop, target):
    "Which barrier a candle meets, 'stop', 'target', 'both' or None, and the price at which it is filled."

    def at_stop(price):
        return stop is not None and (price <= stop if long else price >= stop)

    def at_target(price):
        return target is not None and (price >= target if long else price <= target)

    worst, best = (candle.low, candle.high) if long else (candle.high, candle.low)
    if at_stop(candle.open):
        return "stop", candle.open
    if at_target(candle.open):
        return "target", candle.open
    if at_stop(worst) and at_target(best):
        return "both", stop
    if at_stop(worst):
        return "stop", stop
    if at_target(best):
        return "target", target
    return None, None


def met_within(inner, long, stop, target):
    "The same for the finer candles of one candle that meets both: the first of them that meets a barrier tells."
    for candle in inner:
        what, price = met(candle, long, stop, target)
        if what is not None:
            return what, price
    return "both", stop


def follow(candles, row, long, stop, target, trail, trail_from, timeout, finer=None):
    """Walk a trade that is decided at the close of `row` and entered at the next open.

    stop, target: prices, None for none. trail: distance behind the best price of completed candles, from a gain of
    trail_from on. timeout: candles, None for none. finer: per candle a list of finer candles, or None.
    """
    entry = best = candles[row + 1].open
    final = len(candles) - 1
    if timeout is not None:
        final = min(final, row + timeout)
    for i in range(row + 1, final + 1):
        level, name = stop, "stop"
        gain = best - entry if long else entry - best
        if trail is not None and gain >= trail_from:
            behind = best - trail if long else best + trail
            if stop is None or (behind > stop if long else behind < stop):
                level, name = behind, "trailing"
        what, price = met(candles[i], long, level, target)
        both = 0
        if what == "both":
            what, price = met_within(finer[i] if finer else [], long, level, target)
            both = 1 if what == "both" else 2
        if what == "target":
            return Exit(i, price, "target", both)
        if what is not None:
            return Exit(i, price, name, both)
        best = max(best, candles[i].high) if long else min(best, candles[i].low)
    return Exit(final, candles[final].close, "timeout" if timeout is not None and final == row + timeout else "end")


# ---------------------------------------------------------------- the triple barrier


class Label(NamedTuple):
    "One row of the label: y and ret are None where the outcome is unknown; ahead: candles from t0 to t1."

    y: float | None
    ahead: int
    exit: str
    ret: float | None
    both: int = 0


def distance(value, unit, entry, atr):
    "A distance in price; None where there is none, or the ATR is not known yet."
    if value is None or (unit == "atr" and atr is None):
        return None
    return value * (entry if unit == "fraction" else atr)


def triple_barrier(
    candles, step, target, stop, timeout, unit, window, long, trailing=None, trailing_from=None, full=False, finer=None,
):
    "One Label per candle. Known is what ended by itself before the table did, and without a gap on the way."
    atr, labels = wilder(true_ranges(candles, step), window), []
    for row in range(len(candles)):
        if row == len(candles) - 1:
            labels.append(Label(None, timeout, "end", None))
            continue
        if unit == "atr" and atr[row] is None:
            labels.append(Label(None, timeout, "warm_up", None))
            continue
        entry = candles[row + 1].open
        far = {
            name: distance(value, unit, entry, atr[row])
            for name, value in {"t": target, "s": stop, "trail": trailing, "from": trailing_from or 0.0}.items()
        }
        ahead = 1 if long else -1
        done = follow(
            candles, row, long, None if stop is None else entry - ahead * far["s"],
            None if target is None else entry + ahead * far["t"], far["trail"], far["from"], timeout, finer,
        )
        needed = row + timeout if full else done.row
        last = min(needed, len(candles) - 1)
        if not without_gap(candles, step, row, last):
            labels.append(Label(None, timeout, "gap", None))
        elif needed > last or done.reason == "end":
            labels.append(Label(None, timeout, "end", None))
        else:
            ret = done.price / entry - 1 if long else -(done.price / entry - 1)
            y = 1.0 if done.reason == "target" else 0.0
            labels.append(Label(y, timeout if full else done.row - row, done.reason, ret, done.both))
    return labels


# ---------------------------------------------------------------- an account


class Order(NamedTuple):
    "What one row of a table of orders says; None: the default of the backtest."

    coin: int
    row: int  # decision row within the coin
    side: int  # 1 long, −1 short
    size: float
    stop: float | None = None  # price
    target: float | None = None
    stop_by: float | None = None  # distance
    target_by: float | None = None
    trail_by: float | None = None
    trail_from: float | None = None
    timeout: int | None = None


class Rules(NamedTuple):
    "The settings of a backtest, under the library's names."

    fee: float
    slippage: float
    capital: float
    size_of: str
    max_positions: int
    max_total: int | None
    stop: float | None
    target: float | None
    timeout: int | None
    unit: str
    window: int
    trailing: float | None
    trailing_from: float | None
    upon_opposite_entry: str = "ignore"


class Trade:
    "An order that was taken; money is known once it has ended."

    def __init__(self, order, exit, entry):
        self.order, self.entry, self.quantity = order, entry, 0.0
        self.close_with(exit)

    def close_with(self, exit):
        self.row, self.price, self.reason, self.both = exit

    @property
    def lasted(self):
        "Whether the position was held to the close of its last candle."
        return self.reason in ("timeout", "end", "ruin")


def barriers(order, rules, entry, atr):
    "Stop, target, trail, trail_from and timeout of an order; None where a default needs an ATR not known yet."
    s = order.side
    by = {}
    defaults = {
        "stop_by": (order.stop, rules.stop), "target_by": (order.target, rules.target),
        "trail_by": (None, rules.trailing), "trail_from": (None, rules.trailing_from),
    }
    for name, (price, default) in defaults.items():
        by[name] = getattr(order, name)
        if by[name] is None and price is None and default is not None:
            if rules.unit == "atr" and atr is None:
                return None
            by[name] = distance(default, rules.unit, entry, atr)
    stop, target = order.stop, order.target
    if stop is None and by["stop_by"] is not None:
        stop = entry - s * by["stop_by"]
    if target is None and by["target_by"] is not None:
        target = entry + s * by["target_by"]
    timeout = rules.timeout if order.timeout is None else order.timeout
    return stop, target, by["trail_by"], by["trail_from"] or 0.0, timeout


def newest_row(candles, time):
    "The last candle that has opened by `time`; −1 for none."
    return bisect_right(candles, time, key=lambda candle: candle.time) - 1


def priced(candles, rates):
    "What one long unit owes at each settlement: its rate times the open of the candle in which it falls."
    return [(time, rate * candles[newest_row(candles, time)].open) for time, rate in rates if time >= candles[0].time]


def funding_paid(dues, begin, end, including_end):
    "Funding of one long unit: settlements after the open it was entered at, before (or at) the end."
    return sum(due for time, due in dues if begin < time and (time < end or including_end and time == end))


def settle(trade, candles, step, dues, rules):
    "Gross, fee, slippage, funding, net, and the worst and best excursion as fractions of the entry."
    s, q, entry, price = trade.order.side, trade.quantity, trade.entry, trade.price
    first, last = trade.order.row + 1, trade.row
    bought, sold = entry * (1 + s * rules.slippage), price * (1 - s * rules.slippage)
    end = candles[last].time + (step if trade.lasted else 0)
    trade.gross = s * q * (price - entry)
    trade.fee = rules.fee * q * bought + rules.fee * q * sold
    trade.slip = q * abs(bought - entry) + q * abs(sold - price)
    trade.funding = s * q * funding_paid(dues, candles[first].time, end, not trade.lasted)
    trade.net = trade.gross - trade.fee - trade.slip - trade.funding
    seen = [entry, price]
    for candle in candles[first : last + 1 if trade.lasted else last]:
        seen += [candle.high, candle.low]
    moves = [s * (x - entry) / entry for x in seen]
    trade.worst, trade.best = min(moves), max(moves)


def mark(trade, candles, step, dues, rules, now):
    "What an open position has gained at the close `now`, its closing costs still to be paid."
    row = newest_row(candles, now - step)
    if row <= trade.order.row:
        return 0.0  # decided, not yet entered
    s, q, bought = trade.order.side, trade.quantity, trade.entry * (1 + trade.order.side * rules.slippage)
    begin = candles[trade.order.row + 1].time
    owed = s * q * funding_paid(dues, begin, candles[row].time + step, False)
    return s * q * (candles[row].close - bought) - rules.fee * q * bought - owed


def signals_of_states(orders):
    "Entries and exits of one coin from an order for every candle, whose side is a state: 1 long, −1 short, 0 out."
    entries, exits, before = [], set(), 0
    for order in orders:
        if order.side != before:
            if before:
                exits.add((order.row, before))
            if order.side:
                entries.append(order)
        before = order.side
    return entries, exits


def told_to_leave(trade, row, leaving, orders, rules):
    "Whether an exit of its side, or an entry of the other one, closes a position at this close."
    if (row, trade.order.side) in leaving:
        return True
    return rules.upon_opposite_entry != "ignore" and any(o.side != trade.order.side for o in orders)


def in_the_way(trade, order, candles, now):
    "Whether a position takes room from an order: not if it is left at the open at which that order is carried out."
    if trade.reason != "signal":
        return True
    if trade.order.coin == order.coin:
        return trade.row > order.row + 1
    return candles[trade.row].time > now


def account(coins, step, orders, rules, rates=None, finer=None, exits=None):
    """Trades in the order of their decisions, worth at every close, and what became of the orders.

    coins, rates, finer, exits: one entry per coin; rates: (minute, rate), finer: per candle its finer candles,
    exits: (row, side) where a position of that side is told to leave.
    """
    exits = exits or [set() for _ in coins]
    leaving = [e - {(o.row, o.side) for o in orders if o.coin == i} for i, e in enumerate(exits)]
    finer = finer or [None] * len(coins)
    dues = [priced(candles, rates[i]) if rates else [] for i, candles in enumerate(coins)]
    atr = [wilder(true_ranges(candles, step), rules.window) for candles in coins]
    counts = dict.fromkeys(
        (
            "orders", "conflict", "no_next_candle", "warm_up", "no_size", "coin_busy", "account_full", "only_closed",
            "after_ruin", "taken",
        ),
        0,
    )
    due = {}  # (closing time of the decision) -> orders that can be carried out, by coin
    for order in sorted(orders, key=lambda o: (coins[o.coin][o.row].time, o.coin)):
        candles = coins[order.coin]
        counts["orders"] += 1
        if (order.row, order.side) in exits[order.coin]:
            counts["conflict"] += 1
        elif order.row == len(candles) - 1:
            counts["no_next_candle"] += 1
        elif barriers(order, rules, candles[order.row + 1].open, atr[order.coin][order.row]) is None:
            counts["warm_up"] += 1
        elif order.size == 0:
            counts["no_size"] += 1
        else:
            due.setdefault(candles[order.row].time + step, []).append(order)
    room = rules.max_total or rules.max_positions * len(coins)
    held, trades, equity, ended, ruined = [], [], [], rules.capital, False
    for now in sorted({c.time + step for candles in coins for c in candles}):
        for trade in [t for t in held if coins[t.order.coin][t.row].time + step <= now]:
            ended += trade.net
            held.remove(trade)
        worth = ended + sum(mark(t, coins[t.order.coin], step, dues[t.order.coin], rules, now) for t in held)
        equity.append(worth)
        if worth <= 0 and not ruined:
            ruined = True
            for trade in held:
                end_by_ruin(trade, coins[trade.order.coin], step, dues[trade.order.coin], rules, now)
                ended += trade.net if trade.reason == "ruin" else 0.0
            counts["after_ruin"] += sum(t.reason == "never" for t in held)
            held, trades = [], [t for t in trades if t.reason != "never"]
            equity[-1] = ended
        for trade in held:
            candles = coins[trade.order.coin]
            row = newest_row(candles, now - step)
            others = [o for o in due.get(now, []) if o.coin == trade.order.coin]
            if trade.order.row < row < len(candles) - 1 and candles[row].time + step == now:
                if told_to_leave(trade, row, leaving[trade.order.coin], others, rules):
                    trade.close_with(Exit(row + 1, candles[row + 1].open, "signal"))
                    settle(trade, candles, step, dues[trade.order.coin], rules)
        for order in due.get(now, []):
            candles = coins[order.coin]
            open_still = [t for t in held if in_the_way(t, order, coins[t.order.coin], now)]
            left = [t for t in held if t.order.coin == order.coin and t.reason == "signal" and t not in open_still]
            if ruined:
                counts["after_ruin"] += 1
            elif rules.upon_opposite_entry == "close" and any(
                t.order.side != order.side and t.row == order.row + 1 for t in left
            ):
                counts["only_closed"] += 1
            elif sum(t.order.coin == order.coin for t in open_still) >= rules.max_positions:
                counts["coin_busy"] += 1
            elif len(open_still) >= room:
                counts["account_full"] += 1
            else:
                entry = candles[order.row + 1].open
                limits = barriers(order, rules, entry, atr[order.coin][order.row])
                trade = Trade(order, follow(candles, order.row, order.side > 0, *limits, finer[order.coin]), entry)
                stake = {"equity": worth, "capital": rules.capital}.get(rules.size_of)
                bought = entry * (1 + order.side * rules.slippage)
                trade.quantity = order.size if stake is None else order.size * stake / bought
                settle(trade, candles, step, dues[order.coin], rules)
                held.append(trade)
                trades.append(trade)
    counts["taken"] = len(trades)
    return trades, equity, counts


def end_by_ruin(trade, candles, step, dues, rules, now):
    "A ruined account closes what it holds at this close; an order that waits for its first candle never happens."
    row = newest_row(candles, now - step)
    if row <= trade.order.row:
        trade.reason = "never"
        return
    trade.close_with(Exit(row, candles[row].close, "ruin"))
    settle(trade, candles, step, dues, rules)
