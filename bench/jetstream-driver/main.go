// Puts 256-byte values into a JetStream key-value bucket of three replicas from N concurrent clients, with NATS' own Go
// client, and prints one JSON line per client count: puts per second, median and p99 latency in ms.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const connections = 4 // as many as etcd's driver

type figures struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"perSecond"`
	MedianMs  float64 `json:"medianMs"`
	P99Ms     float64 `json:"p99Ms"`
}

func main() {
	url := flag.String("url", "", "comma-separated server URLs")
	clients := flag.String("clients", "1,16,64", "comma-separated client counts")
	seconds := flag.Float64("seconds", 5, "measured seconds per count")
	warmUpClients := flag.Int("warm-up-clients", 64, "clients that run before anything is measured")
	warmUpSeconds := flag.Float64("warm-up-seconds", 6, "and for how long")
	flag.Parse()
	pool := make([]jetstream.KeyValue, connections)
	for i := range pool {
		pool[i] = open(*url)
	}
	run(pool, *warmUpClients, time.Duration(*warmUpSeconds*float64(time.Second)))
	for _, text := range strings.Split(*clients, ",") {
		count, err := strconv.Atoi(text)
		check(err)
		run(pool, count, time.Second) // warm-up
		line, _ := json.Marshal(run(pool, count, time.Duration(*seconds*float64(time.Second))))
		fmt.Println(string(line))
	}
}

// The bucket is made once the servers have elected who leads them.
func open(url string) jetstream.KeyValue {
	conn, err := nats.Connect(url)
	check(err)
	js, err := jetstream.New(conn)
	check(err)
	config := jetstream.KeyValueConfig{Bucket: "bench", Replicas: 3, Storage: jetstream.FileStorage, History: 1}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		bucket, err := js.CreateOrUpdateKeyValue(ctx, config)
		cancel()
		if err == nil {
			return bucket
		}
		if time.Now().After(deadline) {
			check(err)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(pool []jetstream.KeyValue, count int, span time.Duration) figures {
	value := bytes.Repeat([]byte("x"), 256)
	latencies := make([][]float64, count)
	start := time.Now()
	var group sync.WaitGroup
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Since(start) < span {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				began := time.Now()
				_, err := pool[i%len(pool)].Put(ctx, fmt.Sprintf("key-%d", i), value)
				cancel()
				check(err)
				latencies[i] = append(latencies[i], float64(time.Since(began).Microseconds())/1000)
			}
		}()
	}
	group.Wait()
	elapsed := time.Since(start).Seconds()
	var all []float64
	for _, list := range latencies {
		all = append(all, list...)
	}
	sort.Float64s(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1))] }
	return figures{count, float64(len(all)) / elapsed, at(0.5), at(0.99)}
}
