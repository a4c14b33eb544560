package synthetic

import (
	"math"
	"time"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Attributes of apps, in the order of their names, as a row has them.
const (
	appCountries = iota
	appFree
	appGenres
	appLanguages
	appMinAge
	appModeration
	appName
	appPlatforms
	appPrice
	appRating
	appReleased
	appTags
)

var appFields = []attribute.Field{
	appCountries:  {Name: "countries", Type: attribute.KeywordList},
	appFree:       {Name: "free", Type: attribute.Bool},
	appGenres:     {Name: "genres", Type: attribute.KeywordList},
	appLanguages:  {Name: "languages", Type: attribute.KeywordList},
	appMinAge:     {Name: "min_age", Type: attribute.Int},
	appModeration: {Name: "moderation", Type: attribute.Keyword},
	appName:       {Name: "name", Type: attribute.Keyword},
	appPlatforms:  {Name: "platforms", Type: attribute.KeywordList},
	appPrice:      {Name: "price_usd", Type: attribute.Float},
	appRating:     {Name: "rating", Type: attribute.Float},
	appReleased:   {Name: "released", Type: attribute.Timestamp},
	appTags:       {Name: "tags", Type: attribute.KeywordList},
}

// Attributes of users, in the order of their names.
const (
	userAge = iota
	userCountry
	userLanguage
	userPlatforms
)

var userFields = []attribute.Field{
	userAge:       {Name: "age", Type: attribute.Int},
	userCountry:   {Name: "country", Type: attribute.Keyword},
	userLanguage:  {Name: "language", Type: attribute.Keyword},
	userPlatforms: {Name: "platforms", Type: attribute.KeywordList},
}

// A genre is what clusters share: a name, the lowest age of most of its apps,
// and where they run.
type genre struct {
	name   string
	minAge int64
	family []string
}

var (
	mobile   = []string{"ios", "android"}
	desktop  = []string{"windows", "mac", "linux"}
	anywhere = []string{"ios", "android", "windows", "mac", "linux", "web"}
)

var genres = []genre{
	{"action", 12, anywhere}, {"puzzle", 0, mobile}, {"role-playing", 12, desktop}, {"strategy", 7, desktop},
	{"casual", 0, mobile}, {"simulation", 3, anywhere}, {"racing", 3, mobile}, {"horror", 18, desktop},
	{"word", 0, mobile}, {"shooter", 16, desktop}, {"music", 0, anywhere}, {"sports", 3, anywhere},
	{"card", 3, mobile}, {"building", 7, desktop}, {"education", 0, anywhere}, {"adventure", 7, anywhere},
	{"casino", 18, mobile}, {"idle", 3, mobile}, {"platformer", 3, anywhere}, {"survival", 16, desktop},
}

// genreOf returns the genre of a cluster.
func genreOf(cluster int) int { return cluster % len(genres) }

var (
	tags = []string{
		"2d", "3d", "anime", "arcade", "atmospheric", "base-building", "co-op", "cozy", "crafting", "crime",
		"cyberpunk", "deckbuilding", "detective", "dragons", "exploration", "family", "fantasy", "farming", "fishing", "free-roam",
		"historical", "hidden-object", "history", "leaderboards", "logic", "management", "medieval", "minimalist", "multiplayer", "mystery",
		"narrative", "offline", "open-world", "party", "pets", "physics", "pixel-art", "post-apocalyptic", "procedural", "pvp",
		"relaxing", "retro", "rhythm", "roguelike", "romance", "sandbox", "sci-fi", "short", "singleplayer", "space",
		"stealth", "steampunk", "story", "tactics", "tower-defense", "trains", "trivia", "turn-based", "vehicles", "zombies",
	}
	adjectives = []string{
		"Amber", "Ancient", "Bold", "Bright", "Broken", "Clever", "Copper", "Cosmic", "Crimson", "Crystal", "Dark", "Deep",
		"Distant", "Emerald", "Endless", "Fallen", "Frozen", "Gentle", "Golden", "Hidden", "Hollow", "Iron", "Ivory", "Last",
		"Little", "Lost", "Lucky", "Lunar", "Merry", "Midnight", "Neon", "Pocket", "Quiet", "Rapid", "Royal", "Rusty",
		"Sacred", "Secret", "Silent", "Silver", "Solar", "Stormy", "Sunny", "Super", "Tiny", "Velvet", "Wild", "Wooden",
	}
	nouns = []string{
		"Anvil", "Arena", "Atlas", "Bakery", "Beacon", "Bridge", "Canyon", "Castle", "Circuit", "Cove", "Crown", "Depths",
		"Drift", "Empire", "Engine", "Farm", "Fleet", "Forest", "Forge", "Frontier", "Galaxy", "Garden", "Harbor", "Horizon",
		"Island", "Kingdom", "Lantern", "Legend", "Market", "Meadow", "Mirror", "Orchard", "Outpost", "Patrol", "Planet", "Quest",
		"Reef", "Riddle", "River", "Signal", "Station", "Summit", "Temple", "Tower", "Valley", "Voyage", "Workshop", "Zoo",
	}
	suffixes = []string{" 2", " 3", " Deluxe", " Go", " Heroes", " Mania", " Online", " Party", " Rush", " Saga", " Stories", " Tactics", " Tycoon", " World"}
	prices   = []float64{0.99, 1.99, 2.99, 4.99, 6.99, 9.99, 14.99, 19.99, 29.99, 39.99, 59.99}
)

// A country has a language and a share of the users.
type country struct {
	code, language string
	share          float64
}

var countries = []country{
	{"US", "en", 0.20}, {"IN", "hi", 0.14}, {"BR", "pt", 0.09}, {"CN", "zh", 0.09}, {"DE", "de", 0.06},
	{"JP", "ja", 0.06}, {"GB", "en", 0.05}, {"FR", "fr", 0.05}, {"ID", "id", 0.05}, {"MX", "es", 0.04},
	{"KR", "ko", 0.04}, {"TR", "tr", 0.03}, {"ES", "es", 0.02}, {"IT", "it", 0.02}, {"PL", "pl", 0.02},
	{"CA", "en", 0.01}, {"AU", "en", 0.01}, {"NL", "nl", 0.01}, {"SE", "sv", 0.005}, {"NZ", "en", 0.005},
}

// now is the newest instant in generated data, so that it does not depend on
// when it is generated.
var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// chance is true in a share p of cases.
func (g *Generator) chance(p float64) bool { return g.rng.Float64() < p }

func pick[T any](g *Generator, list []T) T { return list[g.rng.IntN(len(list))] }

// appAttributes sets the attributes of app i.
func (g *Generator) appAttributes(i int64, row *tower.Row) {
	cluster, rank := g.place(i)
	kind := genres[genreOf(cluster)]
	side, hasSide := g.sideCluster(i)
	popularity := g.popularity(rank)
	platforms := g.appPlatforms(i, cluster)
	g.seed(appStream, i)
	row.Attributes = resize(row.Attributes, len(appFields))
	a := row.Attributes

	a[appPlatforms] = attribute.OfKeywords(platforms)
	name := pick(g, adjectives) + " " + pick(g, nouns)
	if g.chance(0.35) {
		name += pick(g, suffixes)
	}
	a[appName] = attribute.OfKeyword(name)

	of := []string{kind.name}
	if hasSide {
		of = append(of, genres[genreOf(side)].name)
	}
	a[appGenres] = attribute.OfKeywords(of)
	var tagged []string
	for k := range 2 + g.rng.IntN(4) { // mostly the cluster's six tags
		tag := int(mix(uint64(cluster), uint64(g.rng.IntN(6))) % uint64(len(tags)))
		if k > 2 {
			tag = g.rng.IntN(len(tags))
		}
		tagged = append(tagged, tags[tag])
	}
	a[appTags] = attribute.OfKeywords(tagged)

	minAge := kind.minAge
	if g.chance(0.2) {
		minAge = pick(g, []int64{0, 3, 7, 12, 16, 18})
	}
	a[appMinAge] = attribute.OfInt(minAge)

	var where, languages []string
	everywhere := g.chance(0.6 + 0.3*popularity)
	share := 0.1 + 0.6*g.rng.Float64()
	home := pick(g, countries)
	languages = append(languages, home.language)
	if g.chance(0.8) {
		languages = append(languages, "en")
	}
	for _, c := range countries {
		if c.code == home.code || everywhere || g.chance(share) {
			where = append(where, c.code)
			if g.chance(0.15 + 0.5*popularity) {
				languages = append(languages, c.language)
			}
		}
	}
	a[appCountries] = attribute.OfKeywords(where)
	a[appLanguages] = attribute.OfKeywords(languages)

	free := g.chance(0.55)
	a[appFree] = attribute.OfBool(free)
	price := pick(g, prices)
	switch {
	case free:
		a[appPrice] = attribute.OfFloat(0)
	case g.chance(0.95): // otherwise not known
		a[appPrice] = attribute.OfFloat(price)
	}

	const years = 18
	age := time.Duration(g.rng.Float64() * g.rng.Float64() * years * 365 * 24 * float64(time.Hour))
	a[appReleased] = attribute.OfTimestamp(now.Add(-age).Truncate(time.Second))
	rating := 3.2 + 0.6*popularity + 0.5*g.rng.NormFloat64()
	if g.chance(0.5 + popularity) { // otherwise too few have rated it
		a[appRating] = attribute.OfFloat(math.Round(10*min(max(rating, 1), 5)) / 10)
	}
	moderation := "approved"
	switch u := g.rng.Float64(); {
	case u < 0.02:
		moderation = "blocked"
	case u < 0.06:
		moderation = "limited"
	}
	a[appModeration] = attribute.OfKeyword(moderation)
}

// appPlatforms returns where an app runs: most of its genre's family, and now
// and then elsewhere. At least one.
func (g *Generator) appPlatforms(i int64, cluster int) []string {
	g.seed(platformStream, i)
	kind := genres[genreOf(cluster)]
	out := []string{pick(g, kind.family)}
	for _, p := range kind.family {
		if g.chance(0.6) {
			out = append(out, p)
		}
	}
	for _, p := range anywhere {
		if g.chance(0.06) {
			out = append(out, p)
		}
	}
	return out
}

// userAttributes sets the attributes of user i.
func (g *Generator) userAttributes(i int64, row *tower.Row) {
	platforms := g.userPlatforms(i)
	row.Attributes = resize(row.Attributes, len(userFields))
	a := row.Attributes
	a[userPlatforms] = attribute.OfKeywords(platforms)
	u := g.rng.Float64()
	home := countries[0]
	for _, c := range countries {
		if home = c; u < c.share {
			break
		}
		u -= c.share
	}
	a[userCountry] = attribute.OfKeyword(home.code)
	language := home.language
	if g.chance(0.1) {
		language = "en"
	}
	a[userLanguage] = attribute.OfKeyword(language)
	if g.chance(0.92) { // otherwise not told
		age := 13 + int64(math.Abs(g.rng.NormFloat64())*16+g.rng.Float64()*6)
		a[userAge] = attribute.OfInt(min(age, 90))
	}
}

// userPlatforms returns where a user plays. It starts the user's sequence.
func (g *Generator) userPlatforms(i int64) []string {
	g.seed(userStream, i)
	var out []string
	if g.chance(0.75) {
		out = append(out, pick(g, mobile))
	}
	if len(out) == 0 || g.chance(0.4) {
		switch u := g.rng.Float64(); {
		case u < 0.8:
			out = append(out, "windows")
		case u < 0.93:
			out = append(out, "mac")
		default:
			out = append(out, "linux")
		}
	}
	return append(out, "web")
}

// resize returns n absent values.
func resize(a []attribute.Value, n int) []attribute.Value {
	if cap(a) < n {
		return make([]attribute.Value, n)
	}
	a = a[:n]
	clear(a)
	return a
}
