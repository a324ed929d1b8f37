"""Sentences with gaps for names and addresses, and sentences that only look as if they had any.

A gap is ``{p}`` a person, ``{f}`` a first name, ``{l}`` a title and last name, ``{a}`` an address,
``{o}`` an organisation, ``{c}`` a city that is no address, ``{n}`` a number, ``{d}`` a date,
``{w}`` a country, ``{b}`` a product, ``{x}`` a title of a film, song or event.
"""

from __future__ import annotations

TRAINED = """
My name is {p} and I live at {a}.
Hi, this is {p}, I am calling about order {n}.
Dear {l}, thank you for your letter of {d}.
Dear {f}, thanks for your message.
Hello {f},\n\nthe invoice is attached.\n\nBest wishes,\n{p}
Kind regards,\n{p}\n{o}
Please send the parcel to {p}, {a}.
Ship to: {p}, {a}
Deliver it to {a} before {d}, please.
The new address of {p} is {a}.
I moved from {a} to {a} in {d}.
{p} lives at {a} with two children.
We met {p} and {p} at the conference in {c}.
{p}, {p} and {p} signed the contract on {d}.
Attendees: {p}, {p}, {p}, {p}
From: {p}\nTo: {p}\nSubject: budget for {d}
Can you tell {f} that the meeting was moved to {d}?
{f} and {f} are coming for dinner on Friday.
The patient, {p}, aged {n}, was admitted on {d}.
Patient {p} of {a} reports headaches since {d}.
Name: {p}\nAddress: {a}\nAmount: {n}
Customer {p}; account {n}; billing address {a}.
{p} works for {o} in {c}.
{o} has appointed {p} as its new finance director.
{p}, chief executive of {o}, said sales had risen by {n} per cent.
The lawyer {p} represents {o} in {w}.
{l} told the court that the payment was made on {d}.
According to {l}, the tests began in {d}.
"We did not expect this," said {p}.
"It was a long day," {p} told reporters in {c}.
{p} was born in {c} in {d} and studied law in {w}.
My colleague {f} will answer your questions.
I spoke to {l} on the phone yesterday; she lives at {a}.
Our office is at {a}, next to the station.
{o} has its head office at {a}.
The shop at {a} is open until eight.
Return the form to {o}, {a}.
The accident happened in front of {a} at noon.
You can find us at {a}.
He rented a flat at {a} for {n} a month.
The suspect, named as {p}, was last seen near {a}.
Emergency contact: {p}, mother, {n}
Reviewed by {p} on {d}.
Author: {p} and {p}
{p} scored twice as {w} won in {c}.
{p} beat {p} in three sets.
{p} won the prize for best director.
Signed: {p}, notary in {c}
Tenant: {p}, born {d}. Landlord: {p}, {a}.
Ask {f} or {p} for the key.
Did {l} call back about the flat at {a}?
Ticket {n} was opened by {p} and assigned to {f}.
Happy birthday, {f}!
{f} said that he would be late.
Is {p} still the owner of {a}?
My grandmother {f} used to live in {c}.
Thanks {f}, I will ask {p} about it.
Booking for {p}, two nights in {c}, arriving {d}.
The package for {a} could not be delivered.
I am {p} from {o}.
{p} ({n}) has been missing since {d}.
The will of {p}, late of {a}, was read on {d}.
{p} thanked {l} for the invitation.
User {p} changed the address to {a}.
agreement between {p}, residing at {a}, and {o}
{p} is married to {p}; they live at {a}.
Mail from {p}: the flight to {c} leaves at {n}.
Best, {f}
Yours sincerely, {p}
Transfer {n} euros to {p}, {a}, before {d}.
Please update my address: {a}
I grew up in {c}, but now my address is {a}.
Summary: {p} complained that {o} had lost a parcel sent to {a}.
{p} asked {p} to call {p}.
interview with {p}, {d}
witness: {p}; place: {a}; time: {n}
"""

HARMLESS = """
The match between {w} and {w} takes place in {c} on {d}.
{o} opened a new factory in {w}.
I bought a {b} last {d} and it broke after {n} days.
{b} and {b} are the largest makers of phones in {w}.
The weather in {c} was fine in {d}.
We flew from {c} to {c} via {c}.
{x} opens in {c} in {d}.
{x} was the best film of {d}.
Have you seen {x}? It is on {b}.
The population of {c} is {n} million.
She speaks Spanish, German and some Arabic.
On {d} the Senate of {w} passed the bill.
The parliament in {c} will vote on {d}.
Shares in {o} fell {n} per cent on Monday.
{o} and {o} will merge in {d}.
The {b} store in {c} opens at nine.
Does {b} work with {b}?
Install {b} version {n} and restart the server.
The University of {c} has {n} students.
{w} exports oil to {w} and {w}.
I will be in {c} from {d} to {d}.
Room {n} is on the second floor.
Order {n} was shipped on {d}.
The train to {c} leaves from platform {n}.
Chapter {n} deals with contracts.
Error {n}: the file was not found.
The meeting is on {d} at {n} o'clock.
Call {n} or write to the help desk.
The index rose {n} points to {n}.
Version {n} of {b} was released in {d}.
Take two tablets a day for {n} days.
Turn left after {n} miles and follow the signs to {c}.
{w} won {n} gold medals at the Games in {c}.
Congratulations to the whole team on {n} years!
The president of {w} arrives in {c} on {d}.
Will the market rise in {d}? Mark my words.
May I ask what the bill is for? Grant me a minute.
Rose petals, hazel nuts and a pinch of sage.
The prime minister, the queen and the chancellor met on {d}.
Summer in {w} is hot; winter in {c} is mild.
The Bank of {w} raised interest rates by {n} per cent.
Ministry of Health of {w}, press release of {d}
{b} {n} is cheaper in {w} than in {w}.
What is the capital of {w}?
Flights to {c}, {c} and {c} are cancelled.
The court in {c} rejected the appeal of {o}.
Java, Python and Ruby are languages; {b} uses all of them.
"""

UNSEEN = """
You can reach {p} under the number below, or visit {a}.
The keynote will be given by {p} of {o}.
Hey {f}, could you forward this to {p}?
Invoice {n}\nBill to {p}\n{a}
The flat belongs to {l}, who moved to {a} last year.
After {p} had resigned, {p} took over in {c}.
{p} has worked with {o} since {d} and speaks for the staff.
Police searched a house at {a} and arrested {p}.
I would like to cancel the subscription of {p}, {a}.
Sorry {f}, I forgot the files; {l} has them.
It was {p} who first noticed the mistake, not {p}.
Our driver will collect the goods at {a} on {d}.
Minutes: {p} (chair), {p}, {p}; apologies from {p}.
The letter to {l} came back because {a} does not exist.
Thank you for your time. {p}
Claimant {p}, domiciled at {a}, seeks {n} in damages.
Would {f} like to join us in {c}?
The photograph shows {p} in front of the museum in {c}.
The novel by {p} was translated into nine languages.
Register the car to {p}, {a}, from {d}.
She introduced me to {p}, a friend from {c}.
Doctor {p} prescribed {n} milligrams on {d}.
Delivery note: {a}, third door on the left.
Nobody at {o} had heard of {p} before {d}.
"""

UNSEEN_HARMLESS = """
In {d} the firm moved its servers from {c} to {c}.
Nobody in {w} buys {b} any more.
{x} was shown at the festival of {c}.
Sales of {o} in {w} doubled to {n}.
Add {n} grams of flour and wait until Sunday.
The river flows through {c} and reaches {w}.
We compared {b} with {b} on {n} questions.
The embassy of {w} in {c} is closed on {d}.
{o} denied reports from {c}.
Page {n} explains how to reset the device.
"""

FIRMS = """
Microsoft Apple Google Sony Nintendo Samsung Nokia Motorola Intel IBM Dell Toshiba Yahoo Amazon
eBay Adobe Oracle Cisco Siemens Bosch BMW Volkswagen Toyota Honda Ford Fiat Renault Boeing Airbus
Vodafone Nike Adidas Puma Gucci Prada Chanel Heineken Pepsi Nestle Lego Ikea Tesla Uber Netflix
Facebook Twitter Barclays Lloyds Lufthansa Ryanair BBC Reuters Disney HSBC UBS KPMG Deloitte Pfizer
""".split()

PRODUCTS = """
Xbox PlayStation iPod iPhone Windows Linux Android Firefox Corolla Golf Focus Skype Instagram Excel
Outlook PowerPoint Photoshop Ubuntu Docker Kindle Alexa Siri Spotify Visa Mastercard PayPal Walkman
Guinness Aspirin Python Java Galaxy Chrome Safari Word Office Mustang Beetle Gmail Teams Jira
""".split()

TITLES_OF_WORKS = (
    """
The Aviator|Sideways|Million Dollar Baby|Star Wars|The Lord of the Rings|Shrek|Titanic|Hamlet
Romeo and Juliet|The Matrix|Casablanca|World Cup|Premier League|Six Nations|Grand Slam|Champions
League|Golden Globes|Christmas|Easter|Eurovision|Band Aid|Live Aid|Bohemian Rhapsody|The Godfather
Dr Strangelove|Mrs Doubtfire|Ray|Finding Neverland|Vera Drake|Half-Life|The Sims|Super Mario
Wimbledon|Australian Open|Super Bowl|Tour de France|Big Brother|Spider-Man|Moby-Dick|Emma
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

_COUNTRIES = """
Britain England Scotland Wales Ireland France Germany Italy Spain Portugal Netherlands Belgium
Switzerland Austria Sweden Norway Denmark Finland Poland Hungary Romania Bulgaria Greece Turkey
Russia Ukraine China Japan Korea India Pakistan Indonesia Thailand Vietnam Malaysia Australia
Canada Mexico Brazil Argentina Chile Peru Colombia Cuba Egypt Morocco Kenya Nigeria Ghana Iran
Iraq Israel Jordan Lebanon Syria Kuwait Qatar Croatia Serbia Slovenia Slovakia Cyprus Malta
Iceland Luxembourg Estonia Latvia Lithuania Georgia America Europe Africa Asia
"""
COUNTRIES = [
    *_COUNTRIES.split(),
    "the United States",
    "New Zealand",
    "South Africa",
    "Saudi Arabia",
    "Sri Lanka",
]

_CITIES = """
London Paris Berlin Madrid Rome Vienna Brussels Amsterdam Dublin Edinburgh Glasgow Cardiff Belfast
Manchester Liverpool Birmingham Leeds Sheffield Bristol Newcastle Southampton Oxford Cambridge
Boston Chicago Washington Houston Dallas Austin Denver Seattle Detroit Miami Atlanta Toronto
Montreal Vancouver Sydney Melbourne Brisbane Perth Auckland Wellington Tokyo Osaka Beijing Shanghai
Moscow Athens Istanbul Cairo Nairobi Lagos Delhi Mumbai Karachi Jakarta Bangkok Manila Singapore
Munich Hamburg Frankfurt Cologne Zurich Geneva Milan Turin Naples Barcelona Lisbon Porto Prague
Warsaw Budapest Stockholm Oslo Copenhagen Helsinki Lyon Marseille Santiago Lima Bogota Dubai
"""
CITIES = [
    *_CITIES.split(),
    "New York",
    "Los Angeles",
    "San Francisco",
    "Las Vegas",
    "Hong Kong",
    "Cape Town",
]

MONTHS = (
    "January February March April May June July August September October November December".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
