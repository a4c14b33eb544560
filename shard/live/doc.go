// Package live is what has changed since snapshots were built: events on an append-only
// log in the store (see package appendlog), and what they amount to. It knows no snapshot:
// package overlay lays it over one.
//
// # Events
//
// An [Event] is one change: a takedown, its restoration, an app or user upserted for one
// model version, attributes set, a removal, a user forgotten. An entry of the log holds
// those of one commit. An event counts from the moment that its entry is durable, for
// every process that reads the log, in the order of the entries, and within one in theirs.
// One that is sent again under its id counts once.
//
//	live/000000001337.log              entry 1337, see [Decode]
//	live/checkpoints/000000001300.log  what entries 1 to 1300 amount to, see [ReadCheckpoint]
//	live/key                           the key of [Forgotten], see [Key]
//
// ../format.md has their bytes. A process that is told of an event again, under its id, knows
// it for a day, by the times of entries, and a million events at least.
//
// # What they amount to
//
// A [State] is what the events up to a [Position] amount to, for each app and user:
//
//   - A takedown holds until it is restored: in every snapshot, whatever is upserted
//     meanwhile. It does not expire, and is never refused for want of room.
//   - A window says from when until when an app may be returned, by the clock, in every
//     snapshot, until another event sets it.
//   - An upsert is the whole app, or user, in snapshots of its model version that were
//     built from inputs older than it; in others it is nothing. Attributes set later are
//     laid over it.
//   - Attributes set belong to no model version. They are laid over what snapshots have
//     whose inputs are older.
//   - A removal takes the app or user out of snapshots whose inputs are older, with all
//     that was upserted and set before, but for its window.
//   - A forgotten user is in no snapshot, and nothing of the user is in the state but a
//     keyed hash of the id. It does not end, but for an upsert: who comes back is new.
//     What is set and removed of the user until then is nothing, and is written without the id.
//   - What was upserted and set ends when it is settled, since every snapshot that is kept
//     has it: who collects snapshots writes that. Until then there must be room for it.
//
// # Appending
//
// A [Replica] follows the log and appends to it. Appends that come at the same time share
// an entry (group commit), takedowns and what restores or forgets ahead of the rest. What is
// appended together is in one entry, so all of it counts or nothing. An append returns when
// its events are durable: then they survive whatever becomes of the process. One whose
// outcome is unknown is repeated under the same event ids, which finds out.
//
// Of processes that append at a time one wins each entry, and the others are handed what it
// wrote and try again behind it. Who has won lets the others go first for as long as it sees
// entries of theirs.
//
// # Proof
//
// A replica knows how old its knowledge is: [View.Proof] is when the log was last proved to
// end at the view's position. That is what bounds how long an app that was taken down may
// still be returned; see [Proof].
//
// # Checkpoints
//
// Whoever appends writes a checkpoint once the log behind the last has grown to half of
// it and 16 MiB, or to 4,096 entries. Entries that a checkpoint sums up are deleted by
// [Replica.Trim], once that is old enough: a process that was cut off for less reads on,
// another begins with the checkpoint.
//
// # No time travel
//
// A replica remembers, in a file, the last position that it has published, before it does,
// and refuses to begin with a log that is behind it or has another entry there: a store that
// was restored from a copy, whether it was written again or not ([TimeTravelError]). Replicas
// that share the file remember the highest that one of them has published. A
// person may accept it: [Replica.Accept] begins a log with an id of its own, which sorts
// after all earlier ones, and everyone follows that, and reads the log anew for it: entries that
// were read before may be missing, which it is accepted without. Inputs of snapshots are positions of
// the log that they were read from; a [Lineage] says what of the log of today they reflect.
//
// The package has more than 3,000 lines because an event, what it amounts to, its bytes and
// who appends it share what they must agree on, such as what counts once.
package live
