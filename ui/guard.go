package ui

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// launchFor is how long an address that is good for one visit is good.
const launchFor = time.Minute

// guard lets only the page of this server, in the browser of whoever has the key, reach the handlers.
type guard struct {
	port   int
	key    string // in the address that is printed; good for as long as the server runs
	secret string // of the cookie
	room   string // the directory of all addresses, which keeps the cookie from servers on other ports
	next   http.Handler

	mu       sync.Mutex
	launches map[string]time.Time // keys that are good for one visit, with their end
}

func newGuard(port int, next http.Handler) *guard {
	return &guard{port: port, key: newSecret(), secret: newSecret(), room: "/" + newSecret() + "/", next: next, launches: map[string]time.Time{}}
}

// newSecret has 256 random bits.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// launch returns a key that is good for one visit. It may be an argument of a browser, where other users of the machine can see it: they
// come too late.
func (g *guard) launch() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := newSecret()
	g.launches[k] = time.Now().Add(launchFor)
	return k
}

// admits says whether a key opens the door, and takes it away if it is good for one visit.
func (g *guard) admits(key string) bool {
	if same(key, g.key) {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, end := range g.launches {
		if time.Now().After(end) {
			delete(g.launches, k)
		} else if same(key, k) {
			delete(g.launches, k)
			return true
		}
	}
	return false
}

// same compares without telling by its time how much is the same.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// cookie is the name of the cookie. Browsers send cookies to all ports of a host, and another user of the machine may serve one of them. So the
// cookie belongs to the room, whose name such a server does not know, and is sent nowhere else.
func (g *guard) cookie() string { return "mergekit-" + strconv.Itoa(g.port) }

// policy is the Content-Security-Policy of everything that is served: scripts and styles are files of the server, and what is shown in a
// frame is, too.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// headers are on every response, refusals included.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=()",
	"Cache-Control":                "no-store",
}

// ServeHTTP refuses what does not come from the server's own page.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for k, v := range headers {
		w.Header().Set(k, v)
	}
	if why := g.foreign(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	if q := r.URL.Query(); r.URL.Path == "/" && q.Has("key") {
		if !reads(r) || !g.admits(q.Get("key")) {
			http.Error(w, "this address is not good any more; take the one that 'mergekit ui' has printed last", http.StatusForbidden)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: g.cookie(), Value: g.secret, Path: g.room, HttpOnly: true, SameSite: http.SameSiteStrictMode})
		http.Redirect(w, r, g.room, http.StatusSeeOther) // so that the key is neither in the address bar nor in the history
		return
	}
	c, err := r.Cookie(g.cookie())
	if err != nil || !same(c.Value, g.secret) || !strings.HasPrefix(r.URL.Path, g.room) {
		http.Error(w, "open the address that 'mergekit ui' has printed", http.StatusUnauthorized)
		return
	}
	http.StripPrefix(strings.TrimSuffix(g.room, "/"), g.next).ServeHTTP(w, r)
}

// reads says whether a request changes nothing.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// foreign says why a request is not from the server's own page, or from a person who typed its address.
func (g *guard) foreign(r *http.Request) string {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || port != strconv.Itoa(g.port) || !loopback(host) {
		return fmt.Sprintf("refused: this server answers to 127.0.0.1:%d alone", g.port)
	}
	if origin, ok := r.Header["Origin"]; ok || !reads(r) { // browsers send it with whatever could change something
		if len(origin) != 1 || origin[0] != "http://"+r.Host {
			return "refused: the request comes from another site"
		}
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "same-origin":
	case "none": // typed, or opened by another program
		if !reads(r) {
			return "refused: the request comes from no page"
		}
	default:
		return "refused: the request comes from another site; copy the address into the address bar"
	}
	return ""
}

// loopback says whether a host can only be this machine. Other names could be made to lead here.
func loopback(host string) bool { return host == "127.0.0.1" || host == "localhost" || host == "::1" }
