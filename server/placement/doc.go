// Package placement says which nodes are to hold which shards, as a pure function of the
// members, the shards and how many copies there are to be: whoever knows these finds the same,
// on every machine, and nobody has to be asked.
//
// Nodes load by a [Plan], and routers ask those that say that they are ready. So where
// two nodes see different members for a while, that costs time, and no answer is wrong.
//
// # Goals
//
// A shard's copies are on different members, and in different zones while there are so many;
// no member maps more than its memory; loads are alike; and a change of one member moves
// little. Those before go before those after.
//
// # Design
//
// Every shard ranks all members by weighted rendezvous hashing: by -log(u)/weight, where u is a
// hash of the shard's key and the member's name, so that each member is a shard's first choice
// as often as its weight says (Thaler and Ravishankar, "Using name-based mappings to increase hit
// rates", 1998; weights: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA
// 2005). Logarithms are made of whole numbers, and compared as products of them.
//
// A member takes shards up to a bound that is somewhat above its share, and what is
// above goes to the next in the shard's order, as in Mirrokni, Thorup and Zadimoghaddam,
// "Consistent hashing with bounded loads" (SODA 2018). Shards choose one after the other, large
// ones first and then by their hashes. Where no member is within all rules, they are given up in
// this order: the bound, zones apart, and never memory. If a shard is left without a
// copy, all choose anew, their first copies before any second.
//
// # What moves
//
// The minimum of a change of one member is what no placement that divides by weight can leave:
// the sum of what shares grow by, or what that member itself gains or loses, whichever is more.
// Beyond it is a shard that moves because another one has taken its place.
//
// A change moves about the minimum in the mean and at most twice the minimum, save in one of
// some hundred, which moves up to one shard more: the tests hold it to that, with members and
// shards that are alike and that are not. Two cases are outside. Where memory does not suffice
// for all copies, whatever changes moves what it takes to have as many as can be. And nothing
// holds for all names that members may have: no placement that knows only who is there now
// keeps both a bound on loads and one on what moves. By Ramsey's theorem there are names
// on which it depends by their order alone, and then either a first or a last member that comes
// moves half of all shards.
//
// So the bound on loads is no tighter than that allows. It is a fourth above the share, and up to
// two shards more where members have few of them. Each member's has a part of a shard
// of its own above that, since bounds that fall below a whole number together would move a shard
// of every full member at once.
package placement
