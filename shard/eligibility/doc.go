// Package eligibility compiles eligibility filters and evaluates them over the
// attributes of a shard.
//
// A [Compiler] belongs to one attribute schema and turns a filter's text into a
// [Filter]; [Filter.Bind] fixes the values of one query's bindings, which gives a
// [Bound]; [Bound.Eval] writes the eligible ordinals of one shard to a dense
// bitset. The server compiles and binds once per query, the fan-out evaluates
// once per shard. To explain an answer, [Bound.Clauses] takes the filter apart.
//
// # Goals
//
// The language is CEL, which people know, so that they need not learn another.
// The answer is exact for every filter that compiles, and a filter that cannot be
// answered from bitmaps does not compile: there is no slow path. A mistake is
// found before any shard is asked, and its message has the line and the column,
// what is wrong and what is supported. The text comes from the network, so it is
// limited in length, depth and size. Evaluation allocates nothing and its time
// grows with the rows of a shard, not with what its rows have. Bindings come from the
// network too: a list is converted once for each type that it is compared with, however
// often the filter uses it, how often it does is bounded, and the query's context is
// looked at from element to element and from set to set.
//
// # The language
//
//	early_access && !adult                 bool attributes
//	year >= 2015, price < 9.99, 5 < year   numbers; int and float mix, exactly;
//	                                       a float32 meets a number as the nearest float32
//	genre == "rpg", genre != user.genre    keywords; <, <=, >, >= by bytes
//	name.startsWith("The ")
//	released < timestamp("2024-01-01T00:00:00Z")
//	year in [2015, 2016], genre in user.genres
//	"linux" in platforms, user.country in countries
//	platforms.exists(p, p == "linux" || p.startsWith("win") || p in user.platforms)
//	has(price)
//	user.age >= 18                         bindings alone
//	&&, ||, !, parentheses, true, false
//
// user.NAME is a binding. Beside a number, a binding's string is an int in decimal, and
// a float64 that an int may have been rounded to is an error where an int is: it is the
// other side that says what a value is. Two strings of bindings are compared as strings,
// unless ints or timestamps that both may be compare otherwise: then it is an error. Two
// attributes cannot be compared with each other, and there is no arithmetic.
//
// Logic has two values. A comparison, in, startsWith or exists of an attribute
// that an app does not have is false, and so is a bool attribute: x != 5 is then
// false and !(x == 5) true. has(x) asks whether it has the attribute. An empty
// list is absent.
//
// # Design
//
// Package cel-go parses the text (Pratt parser, bounded depth and nodes) and
// checks its types, against declarations of only those operators and functions
// that we compile; nothing of its interpreter is used. A pass before the check
// rejects what we do not support, because it can say so better. What remains is
// translated to a tree of and, or, not and tests, where a test is an attribute,
// an operator and a constant or binding ([Compiler.Compile]).
//
// Binding puts constants for the operands: each test becomes stretches of the
// attribute's order (closed ranges of numbers or times, keywords), which makes every
// comparison of an int with a float exact, because the rounding is done once, on
// the constant. An impossible or certain test disappears with what it decides.
//
// Evaluation merges the tests of an and into the destination one by one, and so
// those of an or: a [merger] knows how to or, and, and to remove what a subtree
// yields, so scratch bitsets are needed only where the operator changes. They
// come from a pool.
package eligibility
