// Package snapshots keeps snapshots in a store and opens them from it.
//
// # Goals
//
// Whatever is in a [Store] is whole, and is what its name says. What was acknowledged
// survives the end of the process, and of the machine if its disk does. Who deletes never
// deletes what someone else relies on, whichever machines the two are on and wherever they
// stand still.
//
// # Design
//
// Shards and manifests are named by their content and never change, so writing one again
// changes nothing, and what is in the cache of a machine is as good as what is in the
// bucket. A manifest is written after its shards. Writers that rely on what they did not
// write say so in an intent, which they renew (see [Protection]); a [Store.Collect] marks
// what it is about to delete, looks once more at who relies on it, and only then deletes.
// Neither trusts the other's clock.
//
// The package has more than 3,000 lines because store, cache, collection and transfer share
// the state of one protocol: what is marked, protected, claimed or under way.
package snapshots
