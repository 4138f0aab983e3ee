-- Two tables with the full rows in every change, and a role that may do what Millrace needs and no more.
create table customers (id bigint primary key, email text not null, phone text, credit numeric(12, 2) not null default 0);
create table orders (id bigint primary key, customer bigint not null references customers, total numeric(12, 2) not null);
alter table customers replica identity full;
alter table orders replica identity full;
insert into customers select i, 'c' || i || '@example.com', '+49 170 ' || i from generate_series(1, 1000) i;
insert into orders select i, i % 1000 + 1, i from generate_series(1, 5000) i;
create publication millrace for table customers, orders;
create role millrace login replication password 'millrace';
grant select on customers, orders to millrace;
