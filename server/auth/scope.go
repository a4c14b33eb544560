package auth

import (
	"fmt"
	"strings"
)

// Scopes is a set of what a caller may do.
type Scopes uint8

// The scopes. A scope contains no other one.
const (
	Query    Scopes = 1 << iota // ask for candidates and embeddings
	Live                        // take apps down, write other live events, prove
	Publish                     // decide what is released
	Admin                       // profiles, status and everything for people who operate servers
	Internal                    // what servers ask one another
	Feedback                    // tell what users did with apps
)

// Any has all scopes: as what is needed it means that one is enough, whichever.
const Any = Query | Live | Publish | Admin | Internal | Feedback

var scopeNames = [...]string{"query", "live", "publish", "admin", "internal", "feedback"}

// ParseScope returns the scope of a name.
func ParseScope(name string) (Scopes, error) {
	for i, known := range scopeNames {
		if name == known {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("there is no such scope; there are %s", strings.Join(scopeNames[:], ", "))
}

func (s Scopes) names() []string {
	var list []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// String returns the names of the scopes, with commas between them.
func (s Scopes) String() string { return strings.Join(s.names(), ", ") }

// Priority is which requests are refused first where there is too much to do.
type Priority uint8

// The priorities, the most important first.
const (
	LivePriority  Priority = iota // a person waits for the answer
	BatchPriority                 // nobody does
	AuditPriority                 // it is about the server itself
	priorities
)

var priorityNames = [priorities]string{"live", "batch", "audit"}

// ParsePriority returns the priority of a name.
func ParsePriority(name string) (Priority, error) {
	for i, known := range priorityNames {
		if name == known {
			return Priority(i), nil
		}
	}
	return 0, fmt.Errorf("there is no such priority; there are %s", strings.Join(priorityNames[:], ", "))
}

// String returns the name of the priority.
func (p Priority) String() string { return priorityNames[p] }
